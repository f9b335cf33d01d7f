"""What every VLM checks before it looks: is it an image, are these words, are the scores numbers?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError, InputError


def check_image(image_HWC: NDArray[Any], *, vlm: str) -> None:
    """Refuse what is not a uint8 RGB image.

    Raises:
        ConfigError: the array has other axes, bands or values.
    """
    if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8 or 0 in image_HWC.shape:
        raise ConfigError(
            f"the VLM '{vlm}' takes uint8 RGB images (height, width, 3), got {image_HWC.dtype} {image_HWC.shape}; "
            "choose three bands and stretch them to 0..255 first."
        )


def normalise_prompts(prompts: Sequence[str]) -> tuple[str, ...]:
    """Return prompts as they are asked: lower case, single blanks, no full stop (which parts words for some VLMs).

    Raises:
        ConfigError: nothing was asked, or an empty word.
    """
    if isinstance(prompts, str) or not prompts:
        raise ConfigError(f"prompts must be a list of words, got {prompts!r}; give for example ['building', 'road'].")
    words = tuple(" ".join(str(word).lower().replace(".", " ").split()) for word in prompts)
    if not all(words):
        raise ConfigError(f"an empty word was asked among {list(prompts)!r}; name something, for example 'building'.")
    return words


def check_scores(scores_CHW: NDArray[Any], *, vlm: str) -> None:
    """Refuse scores that are not numbers: half precision overflows, broken weights answer so.

    Raises:
        InputError: a score is NaN or infinite.
    """
    if not np.isfinite(scores_CHW).all():
        raise InputError(
            vlm, "answered with scores that are not numbers", "Use --dtype float32, or fetch the weights again"
        )
