"""Scores as the residual rule compares them: with the outlines of the image, or of the VLM's own instances.

The scores of a small VLM are blurred: they end somewhere near an outline, and cover a large roof in patches. The image
knows where the outline is. Each date is cut into segments of even colour (graph-based segmentation, Felzenszwalb and
Huttenlocher, 2004), and a score becomes a weighted mean of itself and of its mean over the segment. So a roof that is
found in parts is found whole, and a score that runs over the eaves is drawn back, while a segment that shows roof and
yard alike still keeps what the VLM tells apart in it. An image without segments of use changes nothing.

A VLM that gives instances has outlines already: each of its instances counts as found, whatever its score, as at the
instance level.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.masks import crop_instances
from semicdvl.ceg.prompts import Prompts
from semicdvl.types import Segments

SEGMENT_GSD_M = 0.5
"""Finer images are shrunk to this before they are cut into segments: roof tiles are not outlines."""
SMOOTHING_PX = 0.5
MIN_SEGMENT_PX = 20


def prepare_residual_answers(
    answers: tuple[Segments, Segments],
    images_HWC: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    *,
    prompts: Prompts,
    settings: CEGSettings,
) -> tuple[Segments, Segments]:
    """Return a VLM's answers for both dates as the residual rule compares them, see `prepare_residual_scores`."""
    t1, t2 = (
        prepare_residual_scores(answer, image_HWC, prompts=prompts, settings=settings)
        for answer, image_HWC in zip(answers, images_HWC, strict=True)
    )
    return t1, t2


def prepare_residual_scores(
    segments: Segments, image_HWC: NDArray[np.uint8], *, prompts: Prompts, settings: CEGSettings
) -> Segments:
    """Return a VLM's answer with the outlines of its instances, or else of the image.

    Args:
        segments: the answer.
        image_HWC: uint8 RGB image that it is about.
        prompts: its prompts.
        settings: weight and size of the segments, and the ground sampling distance.
    """
    if segments.instances is not None:
        return replace(segments, scores_CHW=_paint_instances(segments, prompts))
    if not settings.residual_outlines:
        return segments
    labels_HW = cut_into_segments(image_HWC, settings=settings)
    scores_CHW = average_over_segments(segments.scores_CHW, labels_HW, weight=settings.residual_outlines)
    return replace(segments, scores_CHW=scores_CHW)


def cut_into_segments(image_HWC: NDArray[np.uint8], *, settings: CEGSettings) -> NDArray[np.int32]:
    """Return the segments of even colour of an image as a label image of its size, numbered from 0."""
    from skimage.segmentation import felzenszwalb

    height, width = image_HWC.shape[:2]
    factor = min(1.0, (settings.gsd_m or SEGMENT_GSD_M) / SEGMENT_GSD_M)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    shrunk_HWC = image_HWC if factor == 1 else cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA)
    labels_HW = felzenszwalb(
        shrunk_HWC, scale=settings.residual_segment_scale, sigma=SMOOTHING_PX, min_size=MIN_SEGMENT_PX
    )
    enlarged_HW = cv2.resize(labels_HW.astype(np.int32), (width, height), interpolation=cv2.INTER_NEAREST)
    return np.asarray(enlarged_HW, np.int32)


def average_over_segments(
    scores_CHW: NDArray[np.floating], labels_HW: NDArray[np.int32], *, weight: float
) -> NDArray[np.float32]:
    """Return scores of which a part is replaced by their mean over the segment."""
    labels_N = labels_HW.ravel()
    areas_S = np.maximum(np.bincount(labels_N), 1)
    averaged_CHW = np.empty(scores_CHW.shape, np.float32)
    for score_HW, averaged_HW in zip(scores_CHW, averaged_CHW, strict=True):
        mean_S = np.bincount(labels_N, weights=score_HW.ravel()) / areas_S
        averaged_HW[...] = weight * mean_S[labels_HW] + (1 - weight) * score_HW
    return averaged_CHW


def _paint_instances(segments: Segments, prompts: Prompts) -> NDArray[np.float32]:
    """Return score maps whose foreground is 1 on the instances of each prompt and 0 elsewhere."""
    painted_CHW = np.array(segments.scores_CHW, np.float32)
    painted_CHW[list(prompts.foreground)] = 0.0
    found = [one for one in segments.instances or () if one.prompt in prompts.foreground]
    shape_hw = painted_CHW.shape[1], painted_CHW.shape[2]
    for instance, mask in zip(found, crop_instances([one.mask for one in found], shape_hw=shape_hw), strict=True):
        painted_CHW[instance.prompt][mask.window][mask.mask_HW] = 1.0
    return painted_CHW
