"""Change events beyond the paper: each rule is an option of its own, off by default (`settings.CEGSettings`).

The paper's rule (`ceg.instance_level`) calls an instance an event when it meets nothing of the other date. It cannot
see a house that was pulled down and built anew on the same ground, and it takes every small object for an event where
the dates don't lie exactly over each other. The options:

Shift tolerance (`shift_px` = d). An instance is an event when, moved as a whole by any shift of whole pixels up to
    length d, the sum of its IoUs still is <= delta. Under delta = 0 this says that nothing of the other date comes
    within d px of it. Each instance may move by itself: a best *common* shift of the pair would not do, since what
    displaces roofs (relief, viewing angle, mosaic seams) displaces each by another amount. The price is named as
    plainly: with tolerance d a new object within d px of an old one is not found, so d should be the error of the
    registration and no more. Areas are those of the whole instance, also where a shift moves it over the image's edge.
Replaced by another shape (`replaced_iou`). An instance that met something, but whose best IoU is below the bound.
Replaced by another class (`replaced_class`). An instance whose best partner answers another prompt. Don't use it with
    synonyms ("house", "building"): which of the two a VLM prefers may change from date to date.
Replaced by something of other looks (`min_cosine`). An instance that met something, but over whose pixels the mean
    features of the dates have a cosine below the bound. Features come as arrays, from any network.

Instances may overlap, and are masks or COCO RLE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray
from pycocotools import mask as rle

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.rules import InstanceMask, encode_instances
from semicdvl.errors import DataError


@dataclass(frozen=True)
class CroppedMask:
    """An instance, cut to its box: top row, left column, mask. One without pixels has an empty mask."""

    row: int
    col: int
    mask_HW: NDArray[np.bool_]

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the image that its mask covers."""
        height, width = self.mask_HW.shape
        return slice(self.row, self.row + height), slice(self.col, self.col + width)


@dataclass(frozen=True)
class InstanceMatches:
    """Which instances of the dates meet, and how well; an IoU is the best over all shifts that are tolerated.

    Attributes:
        first_P: index of the instance of date 1, per pair that shares a pixel.
        second_P: index of the instance of date 2.
        iou_P: IoU of the pair.
        iou_sum_t1_N: greatest sum of IoUs, per instance of date 1.
        iou_sum_t2_M: the same of date 2.
    """

    first_P: NDArray[np.int64]
    second_P: NDArray[np.int64]
    iou_P: NDArray[np.float64]
    iou_sum_t1_N: NDArray[np.float64]
    iou_sum_t2_M: NDArray[np.float64]


@dataclass(frozen=True)
class ChangeEvents:
    """Where an instance is a change event: one that met nothing, or one that was replaced."""

    unmatched_HW: NDArray[np.bool_]
    replaced_HW: NDArray[np.bool_]


@dataclass(frozen=True)
class PairFeatures:
    """Feature maps of both dates, DHW; any H and W, they are stretched over the image (nearest cell)."""

    t1_DHW: NDArray[np.floating]
    t2_DHW: NDArray[np.floating]


def find_change_events(
    masks_t1: Sequence[CroppedMask],
    masks_t2: Sequence[CroppedMask],
    *,
    shape_hw: tuple[int, int],
    settings: CEGSettings,
    classes_t1: Sequence[int] = (),
    classes_t2: Sequence[int] = (),
    features: PairFeatures | None = None,
) -> ChangeEvents:
    """Apply the paper's rule and the options of `settings` to the instances of two dates.

    With all options off `alone_HW` is `ceg.instance_level` and nothing is replaced.

    Args:
        masks_t1: foreground instances of date 1, from `crop_instances` or `crop_label_image`.
        masks_t2: those of date 2.
        shape_hw: size of the image in px.
        settings: delta and the options.
        classes_t1: prompt of each instance of date 1; wanted by `replaced_class` only.
        classes_t2: those of date 2.
        features: wanted by `min_cosine` only.

    Raises:
        DataError: an option is on and what it needs is missing or does not fit.
    """
    met = match_instances(masks_t1, masks_t2, shift_px=settings.shift_px)
    alone = [totals <= settings.delta for totals in (met.iou_sum_t1_N, met.iou_sum_t2_M)]
    replaced = [np.zeros(len(pieces), bool) for pieces in (masks_t1, masks_t2)]
    if settings.replaced_iou is not None or settings.replaced_class:
        classes = _classes_as_array(classes_t1, masks_t1), _classes_as_array(classes_t2, masks_t2)
        replaced = list(
            find_replaced(met, classes if settings.replaced_class else None, least_iou=settings.replaced_iou)
        )
    if settings.min_cosine is not None:
        if features is None:
            raise DataError("min_cosine compares features of the dates and got none. Hand them in, or leave it out.")
        for at, pieces in enumerate((masks_t1, masks_t2)):
            replaced[at] = replaced[at] | (
                compute_feature_similarity(pieces, features, shape_hw=shape_hw) < settings.min_cosine
            )
    alone_HW, replaced_HW = np.zeros(shape_hw, bool), np.zeros(shape_hw, bool)
    for at, pieces in enumerate((masks_t1, masks_t2)):
        _paint_masks(alone_HW, pieces, alone[at])
        _paint_masks(replaced_HW, pieces, replaced[at] & ~alone[at])
    return ChangeEvents(alone_HW, replaced_HW)


def _classes_as_array(classes: Sequence[int], pieces: Sequence[CroppedMask]) -> NDArray[np.int64]:
    """Return the classes as an array, one per instance; all alike where none were given."""
    if len(classes) not in (0, len(pieces)):
        raise DataError(f"{len(classes)} classes for {len(pieces)} instances; give one each.")
    return np.asarray(classes, np.int64) if len(classes) else np.zeros(len(pieces), np.int64)


def _paint_masks(map_HW: NDArray[np.bool_], pieces: Sequence[CroppedMask], chosen_N: NDArray[np.bool_]) -> None:
    """Set the pixels of the chosen instances."""
    for piece, chosen in zip(pieces, chosen_N, strict=True):
        if chosen:
            map_HW[piece.window] |= piece.mask_HW


# ------------------------------------------------------------------------------------------------ instances
def crop_instances(instances: Sequence[InstanceMask], *, shape_hw: tuple[int, int]) -> list[CroppedMask]:
    """Cut masks or COCO RLEs to their boxes.

    Raises:
        DataError: an instance is not of the image's size.
    """
    rles = encode_instances(instances, shape_hw)
    if not rles:
        return []
    boxes_N4 = rle.toBbox(rles).astype(int)  # x, y, width, height
    return [
        CroppedMask(int(y), int(x), np.ascontiguousarray(rle.decode(one)[y : y + height, x : x + width]).astype(bool))
        for one, (x, y, width, height) in zip(rles, boxes_N4, strict=True)
    ]


def crop_label_image(labels_HW: NDArray[np.int32]) -> list[CroppedMask]:
    """Cut the objects of a label image (0 = none) to their boxes, in the order of their labels."""
    from scipy.ndimage import find_objects

    found = [(label, place) for label, place in enumerate(find_objects(labels_HW), 1) if place is not None]
    return [CroppedMask(rows.start, cols.start, labels_HW[rows, cols] == label) for label, (rows, cols) in found]


def classify_masks(
    pieces: Sequence[CroppedMask], scores_CHW: NDArray[np.floating], *, foreground: Sequence[int]
) -> list[int]:
    """Return each object's prompt: the foreground one with the greatest mean score over its pixels."""
    chosen = list(foreground)
    return [chosen[int(_sum_scores(piece, scores_CHW, chosen).argmax())] for piece in pieces]


def _sum_scores(piece: CroppedMask, scores_CHW: NDArray[np.floating], chosen: list[int]) -> NDArray[np.float64]:
    """Return the sum of the chosen maps over an instance (as good as the mean, for their order)."""
    rows, cols = piece.window
    return np.array([scores_CHW[index, rows, cols][piece.mask_HW].sum(dtype=np.float64) for index in chosen])


# ------------------------------------------------------------------------------------------------ who meets whom
def match_instances(
    pieces_t1: Sequence[CroppedMask], pieces_t2: Sequence[CroppedMask], *, shift_px: int = 0
) -> InstanceMatches:
    """Compare the instances of two dates under every shift up to `shift_px`.

    Only instances whose boxes come close enough are compared pixel by pixel.
    """
    count = len(list_shifts(shift_px))
    totals_t1_NS, totals_t2_MS = np.zeros((len(pieces_t1), count)), np.zeros((len(pieces_t2), count))
    rows = []
    for first, second, common_S in count_overlaps(pieces_t1, pieces_t2, shift_px=shift_px):
        areas = [np.count_nonzero(piece.mask_HW) for piece in (pieces_t1[first], pieces_t2[second])]
        iou_S = common_S / (sum(areas) - common_S)
        totals_t1_NS[first] += iou_S
        totals_t2_MS[second] += iou_S
        rows.append((first, second, iou_S.max()))
    table = np.array(rows, np.float64).reshape(-1, 3)
    return InstanceMatches(
        table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2],
        totals_t1_NS.max(axis=1), totals_t2_MS.max(axis=1),
    )  # fmt: skip


def count_overlaps(
    pieces_t1: Sequence[CroppedMask], pieces_t2: Sequence[CroppedMask], *, shift_px: int = 0
) -> Iterator[tuple[int, int, NDArray[np.int64]]]:
    """Yield the pairs that share pixels under some shift, in order, and how many under each shift of `disc`."""
    shifts = list_shifts(shift_px)
    for first, second in _candidate_pairs(pieces_t1, pieces_t2, shift_px):
        common_S = np.array(
            [_count_common_pixels(pieces_t1[first], pieces_t2[second], shift) for shift in shifts], np.int64
        )
        if common_S.any():
            yield first, second, common_S


def list_shifts(radius_px: int) -> list[tuple[int, int]]:
    """Return all whole-pixel shifts (rows, columns) of a length up to `radius_px`, in a fixed order."""
    reach = range(-radius_px, radius_px + 1)
    return [(down, right) for down in reach for right in reach if down**2 + right**2 <= radius_px**2]


def _candidate_pairs(
    pieces_t1: Sequence[CroppedMask], pieces_t2: Sequence[CroppedMask], shift_px: int
) -> Iterator[tuple[int, int]]:
    """Yield the pairs of instances whose boxes touch once one of them has grown by the tolerance, in order."""
    if not pieces_t1 or not pieces_t2:
        return
    tree = shapely.STRtree(_search_boxes(pieces_t2, 0))
    pairs_2P = tree.query(_search_boxes(pieces_t1, shift_px), predicate="intersects")
    for at in np.lexsort(pairs_2P[::-1]):
        yield int(pairs_2P[0, at]), int(pairs_2P[1, at])


def _search_boxes(pieces: Sequence[CroppedMask], margin_px: int) -> NDArray[np.object_]:
    """Return the boxes of instances for a search tree."""
    sides_N4 = np.array([(piece.col, piece.row, *piece.mask_HW.shape[::-1]) for piece in pieces], np.float64)
    left, top, width, height = sides_N4.T
    boxes: NDArray[np.object_] = shapely.box(
        left - margin_px, top - margin_px, left + width + margin_px, top + height + margin_px
    )
    return boxes


def _count_common_pixels(one: CroppedMask, other: CroppedMask, shift: tuple[int, int]) -> int:
    """Return the number of pixels that two instances share once the first has moved."""
    row, col = one.row + shift[0], one.col + shift[1]
    top, left = max(row, other.row), max(col, other.col)
    bottom = min(row + one.mask_HW.shape[0], other.row + other.mask_HW.shape[0])
    right = min(col + one.mask_HW.shape[1], other.col + other.mask_HW.shape[1])
    if bottom <= top or right <= left:
        return 0
    mine = one.mask_HW[top - row : bottom - row, left - col : right - col]
    theirs = other.mask_HW[top - other.row : bottom - other.row, left - other.col : right - other.col]
    return int(np.count_nonzero(mine & theirs))


# ------------------------------------------------------------------------------------------------ who was replaced
def find_replaced(
    met: InstanceMatches,
    classes: tuple[NDArray[np.int64], NDArray[np.int64]] | None,
    *,
    least_iou: float | None,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which instances of each date met something, but a poor match or one of another class.

    Args:
        met: who meets whom.
        classes: class of each instance per date; None: any class will do.
        least_iou: bound of the best IoU; None: any shape will do.
    """
    sides = (met.first_P, met.second_P), (met.second_P, met.first_P)
    counts = len(met.iou_sum_t1_N), len(met.iou_sum_t2_M)
    found = []
    for date, ((own_P, other_P), count) in enumerate(zip(sides, counts, strict=True)):
        replaced_N = np.zeros(count, bool)
        order = np.lexsort((other_P, -met.iou_P, own_P))  # best partner first, the earlier one of two alike
        owners, starts = np.unique(own_P[order], return_index=True)
        best = order[starts]
        if least_iou is not None:
            replaced_N[owners] |= met.iou_P[best] < least_iou
        if classes is not None:
            replaced_N[owners] |= classes[date][owners] != classes[1 - date][other_P[best]]
        found.append(replaced_N)
    return found[0], found[1]


def compute_feature_similarity(
    pieces: Sequence[CroppedMask], features: PairFeatures, *, shape_hw: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the cosine between the mean features of the dates, over the pixels of each instance.

    1, that is no sign of change, for an instance without pixels and where a mean feature is zero.

    Raises:
        DataError: the feature maps are no DHW arrays of one shape, or hold NaN.
    """
    t1_DHW, t2_DHW = features.t1_DHW, features.t2_DHW
    refuse_unusable_features(t1_DHW, t2_DHW)
    found = np.ones(len(pieces))
    rows, cols = (np.arange(size) * cells // size for size, cells in zip(shape_hw, t1_DHW.shape[1:], strict=True))
    for at, piece in enumerate(pieces):
        inside_rows, inside_cols = np.nonzero(piece.mask_HW)
        cells, weights = np.unique(
            rows[inside_rows + piece.row] * t1_DHW.shape[2] + cols[inside_cols + piece.col], return_counts=True
        )
        means = [date.reshape(len(date), -1)[:, cells].astype(np.float64) @ weights for date in (t1_DHW, t2_DHW)]
        lengths = float(np.linalg.norm(means[0]) * np.linalg.norm(means[1]))
        if lengths > 0:
            found[at] = float(means[0] @ means[1]) / lengths
    return found


def refuse_unusable_features(t1_DHW: NDArray[np.floating], t2_DHW: NDArray[np.floating]) -> None:
    """Refuse features that cannot be compared.

    Raises:
        DataError: they are no DHW arrays of one shape, or hold NaN.
    """
    if t1_DHW.ndim != 3 or t1_DHW.shape != t2_DHW.shape:
        raise DataError(f"features have the shapes {t1_DHW.shape} and {t2_DHW.shape}; wanted two alike: (D, H, W).")
    if not (np.isfinite(t1_DHW).all() and np.isfinite(t2_DHW).all()):
        raise DataError("features hold NaN or infinity. Check the network and its precision.")


# ------------------------------------------------------------------------------------------------ in one call
def find_change_events_of_instances(
    instances_t1: Sequence[InstanceMask],
    instances_t2: Sequence[InstanceMask],
    *,
    shape_hw: tuple[int, int],
    settings: CEGSettings,
    classes: Mapping[str, Sequence[int]] | None = None,
    features: PairFeatures | None = None,
) -> ChangeEvents:
    """Do `find_change_events` for masks or COCO RLEs; `classes` has the keys "t1" and "t2"."""
    of = classes or {}
    return find_change_events(
        crop_instances(instances_t1, shape_hw=shape_hw),
        crop_instances(instances_t2, shape_hw=shape_hw),
        shape_hw=shape_hw,
        settings=settings,
        classes_t1=of.get("t1", ()),
        classes_t2=of.get("t2", ()),
        features=features,
    )
