"""The protocol of a vision-language model, its answers, and the labels made from the answers for two dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from semicdvl.types.pairs import PairFiles
from semicdvl.types.reliability import MeasuredRange


@dataclass(frozen=True)
class Instance:
    """One object that a VLM found.

    Attributes:
        mask: boolean HW mask of the image's size, or a COCO RLE dict.
        prompt: index of the prompt that it answers.
        score: in [0, 1].

    Examples:
        >>> import semicdvl as cd
        >>> import numpy as np
        >>> mask_HW = np.zeros((64, 96), bool)
        >>> mask_HW[20:50, 30:70] = True
        >>> cd.Instance(mask_HW, prompt=0, score=0.9).score
        0.9
    """

    mask: NDArray[np.bool_] | Mapping[str, Any]
    prompt: int
    score: float


@dataclass(frozen=True)
class Segments:
    """The answer of a VLM for one image.

    Attributes:
        scores_CHW: float32 in [0, 1], one map per prompt, in the order of `prompts`.
        prompts: the prompts, as they were asked.
        instances: the objects found, or None from a VLM that gives score maps only (CEG then uses components).

    Examples:
        >>> import semicdvl as cd
        >>> import numpy as np
        >>> segments = cd.Segments(np.zeros((2, 64, 96), np.float32), prompts=("building", "grass"))
        >>> segments.instances is None
        True
    """

    scores_CHW: NDArray[np.float32]
    prompts: tuple[str, ...]
    instances: tuple[Instance, ...] | None = None


@runtime_checkable
class VLM(Protocol):
    """A vision-language model: an image and prompts in, one score map per prompt out.

    Anything with these three members is one; `DescribedVLM` adds what a VLM may say of itself.

    Examples:
        >>> import semicdvl as cd
        >>> vlm = cd.create_vlm("fake")
        >>> isinstance(vlm, cd.VLM), vlm.gamma
        (True, 0.5)
    """

    @property
    def identity(self) -> str:
        """Name and hash of the weights: equal identities mean equal answers. Part of the keys of stored answers."""
        ...

    @property
    def gamma(self) -> float:
        """Score from which this VLM's answers are reliable: the default of CEG's confidence threshold."""
        ...

    def segment(self, image_HWC: NDArray[np.uint8], prompts: Sequence[str], *, gsd_m: float | None = None) -> Segments:
        """Return the answer for one image.

        Args:
            image_HWC: uint8 RGB image of any size.
            prompts: words or phrases to search for.
            gsd_m: ground sampling distance in metres per pixel, if known.

        Returns:
            Scores CHW in [0, 1] of the image's size, one map per prompt in their order, and the instances, if the VLM
            finds some.
        """
        ...


class DescribedVLM:
    """A base class for VLMs that say what they were measured on, and which words they know; every member has a default.

    A VLM need not derive from it: one that does not counts as not measured and as knowing every word.

    Attributes:
        measured: the prompts and pixel sizes on which its quality was measured.
        class_score: mean score from which the class of a changed object is more than a guess; None: `gamma`.
        class_reliability: how often the classes that are named then are right, and where that was measured.
        words_are_independent: whether the score of a word is the same whatever other words are asked with it; such a
            VLM has no instances.
    """

    measured: MeasuredRange = MeasuredRange()
    class_score: float | None = None
    class_reliability: str = "not measured"
    words_are_independent: bool = False

    def check_words(self, words: Sequence[str]) -> None:
        """Refuse words that the VLM cannot know, before any image is read; by default it knows all.

        Raises:
            ConfigError: it does not know a word.
        """


@dataclass(frozen=True)
class VLMLabels:
    """Pseudo-labels of a pair: change label and single-date labels, uint8 HW maps; IGNORE where the VLM is unsure.

    Attributes:
        change_HW: 0 unchanged, 1 changed.
        t1_HW: label of date 1: 0 or 1 (foreground), or the index of one of several classes.
        t2_HW: the same of date 2.

    Examples:
        >>> import semicdvl as cd
        >>> import numpy as np
        >>> unsure_HW = np.full((64, 96), cd.IGNORE, np.uint8)
        >>> cd.VLMLabels(unsure_HW, t1_HW=unsure_HW, t2_HW=unsure_HW).change_HW.max() == cd.IGNORE
        np.True_
    """

    change_HW: NDArray[np.uint8]
    t1_HW: NDArray[np.uint8]
    t2_HW: NDArray[np.uint8]


class VLMLabelSource(Protocol):
    """Source of the pseudo-labels of a pair for the data loader; the pseudo-label store implements it."""

    def read_labels(self, pair: PairFiles) -> VLMLabels:
        """Return the pseudo-labels of one pair, of the size of its images."""
        ...
