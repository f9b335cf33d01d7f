"""Augment a pair: its weak and strong training views, on uint8 RGB, or on the values of any number of bands.

geometry.py     weak: crop, scale, flips and rotation of both dates and all labels
photometric.py  strong: colour and blur of each date
cutmix.py       strong: the box that one pair takes from another

What is random is *drawn* first (`draw_crop`, `draw_photometric`, `draw_cutmix_box`, from a generator that is handed in)
and then *applied*, so that both dates, the mask and the VLM's labels go through one and the same geometry.

The defaults are the recipe that SemiCDNet's successors share (UniMatch, FixMatch and SemiCD-VL for change detection).
"""

from semicdvl.data.augment.cutmix import CutMixSettings, draw_cutmix_box
from semicdvl.data.augment.geometry import CropTransform, WeakAugmentation, draw_crop
from semicdvl.data.augment.photometric import PhotometricTransform, StrongAugmentation, draw_photometric

__all__ = [
    "CropTransform",
    "CutMixSettings",
    "PhotometricTransform",
    "StrongAugmentation",
    "WeakAugmentation",
    "draw_crop",
    "draw_cutmix_box",
    "draw_photometric",
]
