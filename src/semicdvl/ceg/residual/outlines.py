"""Scores as the residual rule compares them: with the outlines of the image, or of the VLM's own instances.

The scores of a small VLM are blurred: they end somewhere near an outline, and cover a large roof in patches. The image
knows where the outline is. Each date is cut into segments of even colour (graph-based segmentation, Felzenszwalb and
Huttenlocher, 2004), and a score becomes a weighted mean of itself and of its mean over the segment. So a roof that is
found in parts is found whole, and a score that runs over the eaves is drawn back, while a segment that shows roof and
yard alike still keeps what the VLM tells apart in it. An image without segments of use changes nothing.

Cutting takes longer than all else of the rule, and decides only where one date may show what the other does not. So
only windows around such ground are cut, the same at both dates (`find_candidate_windows`); elsewhere scores stay as the
VLM gave them.

A VLM that gives instances has outlines already: each of its instances counts as found, whatever its score, as at the
instance level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.instances.masks import crop_instances
from semicdvl.ceg.prompts import Prompts
from semicdvl.types import Segments

SEGMENT_GSD_M = 0.5
"""Finer images are shrunk to this before they are cut into segments: roof tiles are not outlines."""
SMOOTHING_PX = 0.5
MIN_SEGMENT_PX = 20
CANDIDATE_DIFFERENCE, CANDIDATE_WIDTH = 0.1, 1.5
"""What makes ground a candidate beyond the thresholds of the rule, see `find_candidate_windows`."""
CANDIDATE_SETTINGS = ("residual_score", "residual_other_score", "residual_open_m", "gsd_m")
"""Settings that decide, too, which ground that is."""
BLOCK_M = 8.0
"""Side of the blocks that windows are made of; every candidate has at least this much of its surroundings."""


def prepare_residual_answers(
    answers: tuple[Segments, Segments],
    images_HWC: tuple[NDArray[np.uint8], NDArray[np.uint8]],
    *,
    prompts: Prompts,
    settings: CEGSettings,
    concepts: Sequence[Prompts] = (),
) -> tuple[Segments, Segments]:
    """Return a VLM's answers for both dates as the residual rule compares them, see `prepare_residual_scores`.

    `concepts` are what is compared between the dates, where that is not all that is searched for together.
    """
    windows: tuple[CandidateWindow, ...] = ()
    if settings.residual_outlines and any(answer.instances is None for answer in answers):
        windows = find_candidate_windows(answers, concepts=concepts or (prompts,), settings=settings)
    t1, t2 = (
        prepare_residual_scores(answer, image_HWC, prompts=prompts, settings=settings, windows=windows)
        for answer, image_HWC in zip(answers, images_HWC, strict=True)
    )
    return t1, t2


def prepare_residual_scores(
    segments: Segments,
    image_HWC: NDArray[np.uint8],
    *,
    prompts: Prompts,
    settings: CEGSettings,
    windows: Sequence[CandidateWindow] | None = None,
) -> Segments:
    """Return a VLM's answer with the outlines of its instances, or else of the image.

    Args:
        segments: the answer.
        image_HWC: uint8 RGB image that it is about.
        prompts: its prompts.
        settings: weight and size of the segments, and the ground sampling distance.
        windows: the parts of the image that are cut into segments; None: all of it.
    """
    if segments.instances is not None:
        return replace(segments, scores_CHW=_paint_instances(segments, prompts))
    if not settings.residual_outlines:
        return segments
    height, width = image_HWC.shape[:2]
    if windows is None:
        windows = (CandidateWindow((slice(0, height), slice(0, width)), np.ones((height, width), bool)),)
    outlined_CHW = np.array(segments.scores_CHW, np.float32)
    for window in windows:
        own_CHW = outlined_CHW[(slice(None), *window.rows_cols)]
        labels_HW = cut_into_segments(image_HWC[window.rows_cols], settings=settings)
        averaged_CHW = average_over_segments(own_CHW, labels_HW, weight=settings.residual_outlines)
        np.copyto(own_CHW, averaged_CHW, where=window.inside_HW)
    return replace(segments, scores_CHW=outlined_CHW)


@dataclass(frozen=True)
class CandidateWindow:
    """A part of an image that is cut into segments.

    Attributes:
        rows_cols: its rows and columns.
        inside_HW: the pixels of the window whose scores follow the segments.
    """

    rows_cols: tuple[slice, slice]
    inside_HW: NDArray[np.bool_]


def find_candidate_windows(
    answers: tuple[Segments, Segments], *, concepts: Sequence[Prompts], settings: CEGSettings
) -> tuple[CandidateWindow, ...]:
    """Return the windows of a pair where one date may show foreground that the other does not.

    Candidate pixels have a score of a concept of at least `residual_score` at one date, and less at the other by
    `residual_score - residual_other_score + CANDIDATE_DIFFERENCE`. A block of `BLOCK_M` is a candidate where these
    fill a square of `CANDIDATE_WIDTH` times the radius of the opening: what is narrower is opened away. Candidates and
    the blocks around them are grouped into windows; where these together are as large as the image, it is one window.
    On the pairs of `benchmarks/real_pairs.py` and on cities the map is the same as with all of the image cut.
    """
    gsd_m = settings.gsd_m or SEGMENT_GSD_M
    least = settings.residual_score - settings.residual_other_score + CANDIDATE_DIFFERENCE
    candidate_HW = np.zeros(answers[0].scores_CHW.shape[1:], bool)
    for concept in concepts:
        t1_HW, t2_HW = (answer.scores_CHW[list(concept.foreground)].max(axis=0) for answer in answers)
        candidate_HW |= (np.maximum(t1_HW, t2_HW) >= settings.residual_score) & (np.abs(t1_HW - t2_HW) >= least)
    width_px = max(1, round(CANDIDATE_WIDTH * settings.residual_open_m / gsd_m))
    square = np.ones((width_px, width_px), np.uint8)
    wide_HW = np.asarray(cv2.erode(candidate_HW.astype(np.uint8), square), np.uint8)
    return _group_blocks(wide_HW, side_px=max(1, round(BLOCK_M / gsd_m)))


def _group_blocks(candidate_HW: NDArray[np.uint8], *, side_px: int) -> tuple[CandidateWindow, ...]:
    """Return windows around the square blocks that hold candidates, with the blocks around them."""
    height, width = candidate_HW.shape
    padded_HW = np.pad(candidate_HW, [(0, -size % side_px) for size in (height, width)])
    blocks_HW = padded_HW.reshape(-(-height // side_px), side_px, -(-width // side_px), side_px).max(axis=(1, 3))
    wide_HW = np.asarray(cv2.dilate(blocks_HW, np.ones((3, 3), np.uint8)))
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(wide_HW, connectivity=4)
    if int(stats[1:, cv2.CC_STAT_WIDTH] @ stats[1:, cv2.CC_STAT_HEIGHT]) >= blocks_HW.size:
        return (CandidateWindow((slice(0, height), slice(0, width)), np.ones((height, width), bool)),)
    windows = []
    for number in range(1, count):
        left, top, cols, rows, _ = (int(value) for value in stats[number])
        own_HW = labels_HW[top : top + rows, left : left + cols] == number
        inside_HW = own_HW.repeat(side_px, axis=0).repeat(side_px, axis=1)
        inside_HW = inside_HW[: height - top * side_px, : width - left * side_px]
        at = (slice(top * side_px, (top + rows) * side_px), slice(left * side_px, (left + cols) * side_px))
        windows.append(CandidateWindow(at, inside_HW))
    return tuple(windows)


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
