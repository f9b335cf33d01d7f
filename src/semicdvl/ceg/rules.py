"""The rules of change event generation on single pixels: pixel level, mixed, and single-date segmentation.

Pure functions on NumPy arrays of any size. Source: SemiCD-VL, section 3.2. Where this differs from the printed paper:
Eq. 11 keeps a pixel where the reliability is 0, which is inverted; here unreliable pixels are IGNORE. The rule on whole
objects is `instances.rule`.

Scores are `CHW`, one map per prompt; `foreground` lists the prompts that are searched for ("house", "building"), every
other prompt is background. The score of a concept is the maximum over its prompts; the foreground wins a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import DataError
from semicdvl.types import IGNORE


def find_foreground(
    scores_CHW: NDArray[np.floating[Any]], *, foreground: Sequence[int]
) -> tuple[NDArray[np.bool_], NDArray[np.floating[Any]]]:
    """Return where the foreground concept wins (HW, bool) and the score of the winner (HW, the scores' dtype).

    Args:
        scores_CHW: one score map per prompt.
        foreground: indices of the prompts that are searched for.

    Raises:
        DataError: `scores_CHW` has not three axes, or `foreground` is empty, repeated or out of range.
    """
    if scores_CHW.ndim != 3:
        raise DataError(f"scores have the shape {scores_CHW.shape}; one HW map per prompt is needed: (C, H, W).")
    count = scores_CHW.shape[0]
    chosen = list(foreground)
    if not chosen or len(set(chosen)) != len(chosen) or not all(0 <= index < count for index in chosen):
        raise DataError(
            f"foreground prompts {chosen} do not fit {count} score maps; give distinct indices below {count}."
        )
    found_HW = _max_over_prompts(scores_CHW, chosen)
    others = [index for index in range(count) if index not in chosen]
    if not others:
        return np.ones(found_HW.shape, bool), found_HW
    background_HW = _max_over_prompts(scores_CHW, others)
    return found_HW >= background_HW, np.maximum(found_HW, background_HW)


def _max_over_prompts(scores_CHW: NDArray[np.floating[Any]], indices: Sequence[int]) -> NDArray[np.floating[Any]]:
    """Return the maximum of some maps, plane by plane: indexing with a list would copy them first."""
    best_HW: NDArray[np.floating[Any]] = scores_CHW[indices[0]]
    for at, index in enumerate(indices[1:]):
        best_HW = np.maximum(best_HW, scores_CHW[index], out=best_HW if at else None)
    return best_HW


def pixel_level(
    scores_t1_CHW: NDArray[np.floating[Any]],
    scores_t2_CHW: NDArray[np.floating[Any]],
    *,
    foreground: Sequence[int],
    gamma: float,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Compare the dates pixel by pixel (Eq. 4-7).

    Args:
        scores_t1_CHW: scores of date 1.
        scores_t2_CHW: scores of date 2, same shape.
        foreground: prompts that are searched for.
        gamma: a pixel is reliable where the best score of *both* dates is >= gamma, rounded to the scores' dtype.

    Returns:
        `(change_HW, reliable_HW)`: where the concepts differ, reliable or not; and where both dates are reliable.

    Raises:
        DataError: the shapes differ or `foreground` does not fit.

    Example:
        >>> import numpy as np
        >>> t1_CHW = np.array([[[0.9, 0.1]], [[0.2, 0.85]]], np.float32)  # house, grass: a house on the left
        >>> t2_CHW = np.array([[[0.1, 0.1]], [[0.95, 0.6]]], np.float32)  # grass alone, unsure on the right
        >>> changed_HW, reliable_HW = pixel_level(t1_CHW, t2_CHW, foreground=[0], gamma=0.8)
        >>> changed_HW.tolist(), reliable_HW.tolist()
        ([[True, False]], [[True, False]])
    """
    if scores_t1_CHW.shape != scores_t2_CHW.shape:
        raise DataError(f"scores of the dates differ in shape: {scores_t1_CHW.shape} and {scores_t2_CHW.shape}.")
    found_t1_HW, best_t1_HW = find_foreground(scores_t1_CHW, foreground=foreground)
    found_t2_HW, best_t2_HW = find_foreground(scores_t2_CHW, foreground=foreground)
    worst_HW = np.minimum(best_t1_HW, best_t2_HW)
    return found_t1_HW ^ found_t2_HW, worst_HW >= worst_HW.dtype.type(gamma)


def segmentation(
    scores_CHW: NDArray[np.floating[Any]], *, foreground: Sequence[int], gamma: float
) -> NDArray[np.uint8]:
    """Return the single-date label: 1 foreground, 0 background, IGNORE where the best score is below gamma.

    Args:
        scores_CHW: one score map per prompt.
        foreground: prompts that are searched for.
        gamma: confidence threshold, rounded to the scores' dtype.

    Raises:
        DataError: `scores_CHW` has not three axes, or `foreground` does not fit.

    Example:
        >>> import numpy as np
        >>> scores_CHW = np.array([[[0.9, 0.1, 0.5]], [[0.2, 0.85, 0.4]]], np.float32)
        >>> segmentation(scores_CHW, foreground=[0], gamma=0.8).tolist()
        [[1, 0, 255]]
    """
    found_HW, best_HW = find_foreground(scores_CHW, foreground=foreground)
    return _ignore_unreliable(found_HW, best_HW >= best_HW.dtype.type(gamma))


def segment_classes(
    scores_CHW: NDArray[np.floating[Any]], *, classes: Sequence[tuple[int, Sequence[int]]], gamma: float
) -> NDArray[np.uint8]:
    """Return the class of every pixel: that of the best concept, IGNORE where its score is below gamma.

    With two classes, background 0 and foreground 1 that wins a tie, this is `segmentation`.

    Args:
        scores_CHW: one score map per prompt.
        classes: index of each class and those of its prompts; of equal scores the first class wins.
        gamma: confidence threshold, rounded to the scores' dtype.

    Example:
        >>> import numpy as np
        >>> scores_CHW = np.array([[[0.9, 0.1, 0.5]], [[0.2, 0.85, 0.4]], [[0.1, 0.9, 0.4]]], np.float32)
        >>> segment_classes(scores_CHW, classes=[(4, [0]), (2, [1, 2])], gamma=0.8).tolist()
        [[4, 2, 255]]
    """
    best_HW: NDArray[np.floating[Any]] = _max_over_prompts(scores_CHW, classes[0][1]).copy()
    class_HW = np.full(best_HW.shape, classes[0][0], np.uint8)
    for index, prompts in classes[1:]:
        score_HW = _max_over_prompts(scores_CHW, prompts)
        class_HW[score_HW > best_HW] = index
        np.maximum(best_HW, score_HW, out=best_HW)
    class_HW[~(best_HW >= best_HW.dtype.type(gamma))] = IGNORE
    return class_HW


def mixed(pixel_HW: NDArray[Any], reliable_HW: NDArray[Any], instance_HW: NDArray[Any]) -> NDArray[np.uint8]:
    """Join both levels (Eq. 11, corrected): 1 where both have a change, 0 elsewhere, IGNORE where not reliable.

    Args:
        pixel_HW: change at the pixel level, non-zero where changed.
        reliable_HW: non-zero where both dates are reliable.
        instance_HW: change events at the instance level, non-zero where changed.

    Example:
        >>> import numpy as np
        >>> mixed(np.array([[1, 1, 0]]), np.array([[1, 0, 1]]), np.array([[1, 1, 1]])).tolist()
        [[1, 255, 0]]
    """
    return _ignore_unreliable((pixel_HW != 0) & (instance_HW != 0), reliable_HW != 0)


def make_mixed_labels(
    scores_t1_CHW: NDArray[np.floating[Any]],
    scores_t2_CHW: NDArray[np.floating[Any]],
    instance_HW: NDArray[Any],
    *,
    foreground: Sequence[int],
    gamma: float,
    gamma_segmentation: float,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the mixed change label and both single-date labels, with each date's concepts computed once.

    The same as `mixed` of `pixel_level` and two calls of `segmentation`.

    Raises:
        DataError: the shapes differ or `foreground` does not fit.
    """
    if scores_t1_CHW.shape != scores_t2_CHW.shape or scores_t1_CHW.shape[1:] != instance_HW.shape:
        shapes = f"{scores_t1_CHW.shape}, {scores_t2_CHW.shape} and {instance_HW.shape}"
        raise DataError(f"scores of the dates and the instance map differ in shape: {shapes}.")
    found_t1_HW, best_t1_HW = find_foreground(scores_t1_CHW, foreground=foreground)
    found_t2_HW, best_t2_HW = find_foreground(scores_t2_CHW, foreground=foreground)
    threshold, segmentation_threshold = (best_t1_HW.dtype.type(value) for value in (gamma, gamma_segmentation))
    reliable_t1_HW, reliable_t2_HW = best_t1_HW >= segmentation_threshold, best_t2_HW >= segmentation_threshold
    if gamma == gamma_segmentation:
        reliable_HW = reliable_t1_HW & reliable_t2_HW
    else:
        reliable_HW = (best_t1_HW >= threshold) & (best_t2_HW >= threshold)
    changed_HW = (found_t1_HW ^ found_t2_HW) & (instance_HW != 0)
    return (
        _ignore_unreliable(changed_HW, reliable_HW),
        _ignore_unreliable(found_t1_HW, reliable_t1_HW),
        _ignore_unreliable(found_t2_HW, reliable_t2_HW),
    )


def compute_change_score(
    t1_CHW: NDArray[np.float32], t2_CHW: NDArray[np.float32], *, foreground: Sequence[int]
) -> NDArray[np.float32]:
    """Return |q1 - q2| per pixel, with q = foreground score / (foreground + background score) at each date.

    A concept's score is the maximum over its prompts; q is 0.5 where both are 0.
    """
    others = [index for index in range(len(t1_CHW)) if index not in set(foreground)]
    shares_HW = []
    for scores_CHW in (t1_CHW, t2_CHW):
        found_HW = _max_over_prompts(scores_CHW, foreground)
        total_HW = found_HW + _max_over_prompts(scores_CHW, others)
        share_HW = np.full(total_HW.shape, 0.5, np.float32)
        shares_HW.append(np.divide(found_HW, total_HW, out=share_HW, where=total_HW > 0))
    score_HW: NDArray[np.float32] = np.abs(shares_HW[0] - shares_HW[1])
    return score_HW


def _ignore_unreliable(class_HW: NDArray[np.bool_], reliable_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the class, 0 or 1, where reliable and IGNORE elsewhere.

    As bits, without branches: 1 - 1 keeps the class, 0 - 1 wraps to IGNORE = 255 and covers it. (`np.where` takes
    longer than everything else on maps where reliable and unreliable pixels alternate.)
    """
    unreliable_HW = reliable_HW.view(np.uint8) - np.uint8(1)
    label_HW: NDArray[np.uint8] = np.bitwise_or(class_HW.view(np.uint8), unreliable_HW, out=unreliable_HW)
    return label_HW
