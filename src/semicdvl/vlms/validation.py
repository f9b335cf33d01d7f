"""Validation of what a VLM receives and returns: image, prompts, scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError, InputError
from semicdvl.vlms.words import normalise_word


def check_image(image_HWC: NDArray[Any], *, vlm: str) -> None:
    """Refuse an array that is no uint8 RGB image.

    Raises:
        ConfigError: the array has other axes, bands or values, or no pixel.
    """
    if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8 or 0 in image_HWC.shape:
        raise ConfigError(
            f"the VLM '{vlm}' takes uint8 RGB images (height, width, 3), got {image_HWC.dtype} {image_HWC.shape}. "
            "Choose three bands and stretch them to 0..255 first."
        )


def check_prompts(prompts: Sequence[str]) -> None:
    """Refuse what is no list of prompts.

    Raises:
        ConfigError: there is no prompt, or a single string in place of a list.
    """
    if isinstance(prompts, str) or not prompts:
        raise ConfigError(f"prompts must be a list of words, got {prompts!r}. Give for example ['building', 'road'].")


def normalise_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """Return prompts in lower case, with single blanks and no full stop (which separates words for some VLMs).

    Raises:
        ConfigError: there is no prompt, or an empty one.
    """
    check_prompts(prompts)
    return tuple(" ".join(normalise_word(prompt).replace(".", " ").split()) for prompt in prompts)


def check_template(template: str) -> None:
    """Refuse a sentence template without exactly one place for the word.

    Raises:
        ConfigError: `{}` does not occur once.
    """
    if template.count("{}") != 1:
        raise ConfigError(f"the template {template!r} must contain {{}}, the place of the word, exactly once.")


def check_scores(scores_CHW: NDArray[Any], *, vlm: str) -> None:
    """Refuse scores that are not numbers, which overflowing half precision and broken weights produce.

    Raises:
        InputError: a score is NaN or infinite.
    """
    if not np.isfinite(scores_CHW).all():
        raise InputError(
            vlm, "returned scores that are not numbers", "Use --dtype float32, or download the weights again"
        )
