"""What a vision-language model is and answers, and the labels made of two answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semicdvl.types.pairs import PairFiles


@dataclass(frozen=True)
class Instance:
    """One object that a VLM found: a boolean HW mask or a COCO RLE dict, the prompt it answers, its score in [0, 1]."""

    mask: NDArray[np.bool_] | Mapping[str, Any]
    prompt: int
    score: float


@dataclass(frozen=True)
class Segments:
    """A VLM's answer for one image.

    Attributes:
        scores_CHW: float32 in [0, 1], one map per prompt, in the order of `prompts`.
        prompts: the words that were asked.
        instances: the objects found, or None from a VLM that gives maps only (CEG then takes connected components).
    """

    scores_CHW: NDArray[np.float32]
    prompts: tuple[str, ...]
    instances: tuple[Instance, ...] | None = None


@runtime_checkable
class VLM(Protocol):
    """Words and an image in, a score map per word out."""

    @property
    def identity(self) -> str:
        """Name and hash of the weights: equal identity means equal answers. Part of the key of the answer store."""
        ...

    @property
    def gamma(self) -> float:
        """Score from which this VLM's answers are worth believing: the default of CEG's reliability threshold."""
        ...

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return the answer for one uint8 RGB image; `gsd_m` is its ground sampling distance in metres, if known."""
        ...


@dataclass(frozen=True)
class VLMLabels:
    """Change label and single-date labels made from two answers: uint8 HW maps of 0, 1 and IGNORE (VLM unsure)."""

    change_HW: NDArray[np.uint8]
    t1_HW: NDArray[np.uint8]
    t2_HW: NDArray[np.uint8]


class VLMLabelSource(Protocol):
    """Where the loader gets the VLM's labels of a pair from (the pseudo-label store implements it)."""

    def read_labels(self, pair: PairFiles) -> VLMLabels:
        """Return the labels of one pair, of the pair's size."""
        ...
