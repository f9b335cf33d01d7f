"""How a network is adapted to a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from semicdvl.errors import ConfigError

MIN_PATCH_PX = 32
"""Smallest side of a patch; networks halve it five times."""


@dataclass(frozen=True)
class AdaptSettings:
    """How `adapt` works.

    Attributes:
        patches: most patches that are trained on; the VLM is asked about up to twice as many.
        patch_px: side of a patch, over which the VLM is asked. A smaller raster makes smaller ones.
        crop_px: side of what the network sees of a patch at a time.
        steps: optimiser steps.
        batch: patches per step.
        seed: of everything random.
        backbone: "aerial" is the embedded VLM's own network (`training.self_training.network`), whichever VLM is
        asked; else the network
            is `siam_light` on this backbone, see `models.encoders.timm`.
        pretrained: what another backbone starts from: "imagenet", "none" or a file of weights.
        min_valid_frac: patches with less data (in both dates) are left out.
        gsd_m: metres per pixel where the files don't say; handed to the VLM.
        bands, after_bands, grid, normalise, align: how the pair is read, as in `detection.pipeline.DetectionConfig`.
        device: where the network trains; "auto" takes a GPU where there is one.
    """

    patches: int = 400
    patch_px: int = 256
    crop_px: int = 128
    steps: int = 240
    batch: int = 4
    seed: int = 0
    backbone: str = "aerial"
    pretrained: str = "imagenet"
    min_valid_frac: float = 0.5
    gsd_m: float | None = None
    bands: tuple[int, ...] | None = None
    after_bands: tuple[int, ...] | None = None
    grid: str = "before"
    normalise: str = "none"
    align: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            ConfigError: a number out of range, or more bands than a VLM looks at.
        """
        for name in ("patches", "steps", "batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; wanted 1 or more.")
        if not MIN_PATCH_PX <= self.crop_px <= self.patch_px:
            raise ConfigError(
                f"crops of {self.crop_px} px of patches of {self.patch_px} px: a crop has at least {MIN_PATCH_PX} px and "
                "is no larger than the patch."
            )
        for bands in (self.bands or (), self.after_bands or ()):
            if len(bands) > 3:
                asked = ",".join(map(str, bands))
                raise ConfigError(f"a VLM looks at red, green and blue; asked for bands {asked}. Name three.")

    def reading_options(self) -> dict[str, Any]:
        """Return how the pair is read: arguments of `open_checked_pair` and of `DetectionConfig`."""
        names = ("bands", "after_bands", "grid", "normalise", "align")
        return {name: getattr(self, name) for name in names}
