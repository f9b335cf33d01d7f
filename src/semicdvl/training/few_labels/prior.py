"""The frozen part of a network that starts as the detector without labels: it is asked once about each pair."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import DETECTION_LEVEL, CEGSettings
from semicdvl.ceg.prompts import Prompts
from semicdvl.detection.detectors.vlm_ceg import VLMDetector, build_default_detector
from semicdvl.training.few_labels.maps import PriorMaps, compute_prior_maps

HASH_BYTES = 16
PRECISIONS = ("bfloat16", "float16")
"""With which a VLM's identity may end."""
KEPT_PIXELS = 30_000_000
"""Pixels of pairs whose maps are kept in memory: 16 bytes each, half a gigabyte."""


@dataclass
class VLMPrior:
    """The detector without labels, as `semicdvl detect` runs it, with what it said about the pairs so far.

    It is built at its first use: a network can be built, and its weights loaded, before any weights of the VLM are.
    Copies of a network share it, since nothing of it is trained.

    Attributes:
        prompts: what is looked for, and against what.
        views: test-time views of the VLM.
    """

    prompts: Prompts
    views: int
    _kept: OrderedDict[bytes, PriorMaps] = field(default_factory=OrderedDict, repr=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> VLMPrior:
        """Return itself."""
        return self

    @cached_property
    def detector(self) -> VLMDetector:
        """The detector."""
        from semicdvl.vlms.aerial.build import build_aerial

        vlm, settings = build_aerial(views=self.views), CEGSettings(level=DETECTION_LEVEL)
        return build_default_detector(vlm, prompts=self.prompts, settings=settings)

    @cached_property
    def identity_hash(self) -> bytes:
        """Hash of all that the maps depend on beside the images: weights, prompts, settings of the rule.

        The precision is left out: a run of one processor is of use on another.
        """
        weights, settings = self.detector.vlm.identity, self.detector.settings.to_plain_dict()
        for precision in PRECISIONS:
            weights = weights.removesuffix(f"-{precision}")
        told = (weights, self.prompts.find, self.prompts.background, sorted(settings.items()))
        return hashlib.sha256(repr(told).encode()).digest()[:HASH_BYTES]

    def ask(self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None) -> PriorMaps:
        """Return the maps of a pair in half precision, those of an earlier call where there was one.

        Args:
            t1_HWC: uint8 RGB image of date 1.
            t2_HWC: the same of date 2.
            gsd_m: metres per pixel; None: unknown.
        """
        key = hashlib.sha256(t1_HWC.tobytes() + t2_HWC.tobytes() + f"{t1_HWC.shape} {gsd_m}".encode()).digest()
        if key not in self._kept:
            self._kept[key] = self._detect(t1_HWC, t2_HWC, gsd_m=gsd_m)
            while len(self._kept) > 1 and sum(maps.logit_HW.size for maps in self._kept.values()) > KEPT_PIXELS:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def _detect(self, t1_HWC: NDArray[np.uint8], t2_HWC: NDArray[np.uint8], *, gsd_m: float | None) -> PriorMaps:
        """Return the maps of a pair in half precision."""
        planes_PHW = self.detector.predict_scores(t1_HWC, t2_HWC, gsd_m=gsd_m)
        count = len(self.prompts.words)
        maps = compute_prior_maps(
            planes_PHW[:count],
            planes_PHW[count : 2 * count],
            planes_PHW[2 * count],
            foreground=self.prompts.foreground,
            settings=self.detector.settings.at_gsd(gsd_m),
        )
        return PriorMaps(*(np.asarray(one, np.float16) for one in (maps.logit_HW, maps.inputs_DHW)))  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def share_prior(prompts: Prompts, views: int) -> VLMPrior:
    """Return the frozen part for these prompts, one for all networks of a process."""
    return VLMPrior(prompts, views)
