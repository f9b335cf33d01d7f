"""What the mask of a patch begins with, where no map is there: a vision-language model and change event generation."""

from __future__ import annotations

import threading
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from semicdvl.ceg.prompts import resolve_prompts
from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.detection.inputs import ArrayImage
from semicdvl.detection.pipeline import detect_in_memory
from semicdvl.registry import build_part
from semicdvl.review.labels.sources import PatchImages
from semicdvl.types import Detector
from semicdvl.vlms import VLMS


class Proposer:
    """Proposes masks with the embedded model, one patch at a time; the model is loaded with the first."""

    def __init__(self, prompts: str) -> None:
        """Know what to look for."""
        self.prompts = prompts
        self._lock = threading.Lock()

    @cached_property
    def _detector(self) -> Detector:
        vlm = build_part("VLM", "aerial", VLMS, {})
        detector: Detector = build_vlm_detector(vlm, prompts=resolve_prompts(prompt_set=self.prompts))
        return detector

    def propose(self, images: PatchImages) -> NDArray[np.uint8]:
        """Return a mask in the values of label files.

        Raises:
            ConfigError: the prompts are not known.
        """
        with self._lock:
            result = detect_in_memory(
                ArrayImage(images.t1_HWC, name="before"),
                ArrayImage(images.t2_HWC, name="after"),
                detector=self._detector,
                progress=Console(quiet=True, stderr=True),
            )
            with result:
                change_HW = result.change
        return np.select([change_HW == 1, change_HW == 0], [CHANGED, UNCHANGED], UNKNOWN).astype(np.uint8)
