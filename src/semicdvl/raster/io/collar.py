"""Tell collars without a no-data tag from ground: white ones, black ones with compression noise, and other colours.

Ground that is dark water, snow or a white roof may have the same colours and touch the edge of an image, too. What
tells a collar is its outline: it lies outside the convex hull of the ground, because the edges of a scene are straight,
also where it is rotated. So a region of one colour that touches the edge is a collar only if the ground begins where
its hull begins along most of the edge between them, if the hull has few corners, and if nothing else lies outside it.
The decision is made on the overview sample; the pixels are found by `nodata_border`, and nothing inside the hull is
taken. Of 575 real images one is found to have a collar, and it has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError

COLLAR_CHOICES = ("auto", "none", "black", "white")
"""Which collars without a no-data tag are looked for: any colour, none, or one."""
TOLERANCE_DN = 8
"""Compression leaves values so far from black or white in a collar of 8-bit data."""
CONSTANT_TOLERANCE_DN, MIN_EXACT_FRAC = 3, 0.9
"""A collar of another colour has this tolerance, and exactly one value in this share of its pixels."""
MIN_GROUND_COLOURS = 64
"""Ground beside a collar of another colour has so many colours: a drawing of a few flat colours has no collar."""
CLEAR_DN = 24
"""Pixels that differ by more than this from black or white are ground beside such a collar."""
MIN_STRAIGHT_FRAC, MAX_GAP_PX = 0.6, 3
"""Along this share of its edge towards a collar the convex hull of the ground has ground within so many pixels."""
MAX_CORNERS, CORNER_TOLERANCE_PX = 10, 1.5
"""A scene has few corners, also where the image cuts it; an island in dark water has a round outline."""
MIN_SOLID_FRAC, MIN_SOLID_BESIDE_FRAC = 0.99, 0.8
"""Share of the pixels outside the hull of the ground that have the colour: away from the ground, and everywhere."""
MIN_FRAME_FRAC = 0.02
"""A collar has this share of the outermost pixels."""
MIN_GROUND_FRAC = 0.2
MIN_COLLAR_PX = 64
LOSSY_DILATION_PX = 8
"""Compression mixes the pixels of a block of 8 x 8: so far the ground beside a collar is not to be trusted."""
LOSSY_COMPRESSIONS = ("JPEG", "YCBCR JPEG", "WEBP", "JPEG2000", "LERC", "JXL")


@dataclass(frozen=True)
class Collar:
    """A collar that was found on the sample of an image.

    Attributes:
        name: its colour: "black", "white" or "grey" (any other).
        colour_C: the values of the bands.
        tolerance_dn: by how much its pixels differ from that.
        ground: convex outlines (N2 of col, row, in pixels of the whole grid) of what is ground.
        noisy: whether its pixels differ from each other, as compression leaves them.
    """

    name: str
    colour_C: tuple[float, ...]
    tolerance_dn: float
    ground: tuple[NDArray[np.float64], ...]
    noisy: bool = False

    def select_pixels(self, data_CHW: NDArray[Any], *, row: int, col: int) -> NDArray[np.bool_]:
        """Return where a window has the colour of the collar and lies outside of the ground."""
        near_HW = _select_near(data_CHW, self.colour_C, self.tolerance_dn)
        if not near_HW.any():
            return near_HW
        ground_HW = np.zeros(near_HW.shape, np.uint8)
        for outline_N2 in self.ground:
            corners = np.rint(outline_N2 - (col, row)).astype(np.int32)
            cv2.fillConvexPoly(ground_HW, corners, 1)
        return np.asarray(near_HW & (ground_HW == 0))


def check_collar_choice(collar: str) -> None:
    """Refuse what is not one of `COLLAR_CHOICES`.

    Raises:
        ConfigError: it is not.
    """
    if collar not in COLLAR_CHOICES:
        raise ConfigError(f"The collar {collar!r} is unknown. Give one of {', '.join(COLLAR_CHOICES)}.")


def find_collars(
    data_CHW: NDArray[Any],
    valid_HW: NDArray[np.bool_],
    *,
    shape_hw: tuple[int, int],
    choice: str,
    mixed_px: int = 0,
) -> tuple[Collar, ...]:
    """Find the collars of an image on its overview sample.

    Args:
        data_CHW: the sample; its values are those of the file.
        valid_HW: where the file has data.
        shape_hw: height and width of the whole grid.
        choice: one of `COLLAR_CHOICES`.
        mixed_px: how far resampling mixes the pixels on both sides of an edge: there, values of a collar that differ
            say nothing of compression.
    """
    frame_HW = np.zeros(valid_HW.shape, bool)
    frame_HW[[0, -1]] = frame_HW[:, [0, -1]] = True
    frame_CN = data_CHW[:, frame_HW & valid_HW]
    if choice == "none" or not frame_CN.size:
        return ()
    found = []
    for name, colour_C, tolerance in _list_colours(data_CHW, frame_CN, choice):
        near_N = (np.abs(frame_CN.astype(np.float64) - np.array(colour_C)[:, None]) <= tolerance).all(axis=0)
        if near_N.mean() < MIN_FRAME_FRAC:
            continue
        near_HW = _select_near(data_CHW, colour_C, tolerance) & valid_HW
        clear_HW = _select_clear(data_CHW, colour_C) & valid_HW
        ground = _outline_ground(near_HW | ~valid_HW, near_HW, clear_HW)
        if name == "grey" and not _may_be_collar(data_CHW, near_HW, valid_HW, colour_C):
            continue
        if ground:
            scale = np.array([shape_hw[1] / valid_HW.shape[1], shape_hw[0] / valid_HW.shape[0]])
            outlines = tuple((outline_N2 + 0.5) * scale - 0.5 for outline_N2 in ground)
            sampled = Collar(name, colour_C, tolerance, ground)
            outside_HW = sampled.select_pixels(data_CHW, row=0, col=0) & valid_HW
            inner_HW = _leave_out_edge(outside_HW, mixed_px)
            noisy = _count_exact(data_CHW, inner_HW, colour_C) < 1
            found.append(Collar(name, colour_C, tolerance, outlines, noisy))
    return tuple(found)


def _may_be_collar(
    data_CHW: NDArray[Any], near_HW: NDArray[np.bool_], valid_HW: NDArray[np.bool_], colour_C: tuple[float, ...]
) -> bool:
    """Tell whether a colour that is neither black nor white is exactly one, beside ground of many colours."""
    ground_CN = data_CHW[:, valid_HW & ~near_HW]
    many = np.unique(ground_CN, axis=1).shape[1] >= MIN_GROUND_COLOURS
    return many and _count_exact(data_CHW, near_HW, colour_C) >= MIN_EXACT_FRAC


def _list_colours(
    data_CHW: NDArray[Any], frame_CN: NDArray[Any], choice: str
) -> list[tuple[str, tuple[float, ...], float]]:
    """Return name, values and tolerance of the colours that a collar may have."""
    bands, dtype = len(data_CHW), data_CHW.dtype
    tolerance = TOLERANCE_DN if dtype == np.uint8 else 0
    colours: list[tuple[str, tuple[float, ...], float]] = []
    if choice in ("auto", "black"):
        colours.append(("black", (0.0,) * bands, tolerance))
    if dtype.kind in "iu" and choice in ("auto", "white"):
        colours.append(("white", (float(np.iinfo(dtype).max),) * bands, tolerance))
    if dtype == np.uint8 and choice == "auto":
        values, counts = np.unique(frame_CN, axis=1, return_counts=True)
        usual = values[:, counts.argmax()].astype(float)
        if counts.max() >= 5 * MIN_FRAME_FRAC * frame_CN.shape[1] and TOLERANCE_DN < usual.mean() < 255 - TOLERANCE_DN:
            colours.append(("grey", tuple(usual.tolist()), CONSTANT_TOLERANCE_DN))
    return colours


def _select_near(data_CHW: NDArray[Any], colour_C: tuple[float, ...], tolerance: float) -> NDArray[np.bool_]:
    """Return where all bands are this close to a colour."""
    near = [
        (band_HW >= value - tolerance) & (band_HW <= value + tolerance)
        for band_HW, value in zip(data_CHW, colour_C, strict=True)
    ]
    return np.asarray(np.logical_and.reduce(near))


def _select_clear(data_CHW: NDArray[Any], colour_C: tuple[float, ...]) -> NDArray[np.bool_]:
    """Return where the pixels clearly have another colour."""
    extreme = not TOLERANCE_DN < colour_C[0] < 255 - TOLERANCE_DN
    margin = 0 if data_CHW.dtype != np.uint8 else CLEAR_DN if extreme else CONSTANT_TOLERANCE_DN
    return ~_select_near(data_CHW, colour_C, margin)


def _count_exact(data_CHW: NDArray[Any], near_HW: NDArray[np.bool_], colour_C: tuple[float, ...]) -> float:
    """Return the share of pixels near a colour that have it exactly."""
    return float(_select_near(data_CHW[:, near_HW][:, None], colour_C, 0).mean())


def _leave_out_edge(collar_HW: NDArray[np.bool_], edge_px: int) -> NDArray[np.bool_]:
    """Return the pixels of a collar that lie away from the ground; all of them where it is too narrow for that."""
    side_px = 2 * edge_px + 1
    inner_HW = cv2.erode(collar_HW.astype(np.uint8), np.ones((side_px, side_px), np.uint8)) > 0
    return inner_HW if inner_HW.any() else collar_HW


def _outline_ground(
    region_HW: NDArray[np.bool_], near_HW: NDArray[np.bool_], clear_HW: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], ...]:
    """Return convex outlines of what is ground; none if there is no collar.

    Args:
        region_HW: pixels that have the colour, or no data, which connects them with the edge.
        near_HW: pixels that have the colour.
        clear_HW: pixels that clearly have another one.
    """
    opened_HW = cv2.morphologyEx(clear_HW.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    ground_N2 = _find_hull(_keep_largest(opened_HW))
    if ground_N2 is None:
        return ()
    hull_HW = np.zeros(region_HW.shape, np.uint8)
    cv2.fillConvexPoly(hull_HW, ground_N2.astype(np.int32), 1)
    corners = cv2.approxPolyDP(ground_N2.astype(np.int32)[:, None], CORNER_TOLERANCE_PX, True)
    if hull_HW.mean() < MIN_GROUND_FRAC or len(corners) > MAX_CORNERS:
        return ()
    if not _is_solid(region_HW, hull_HW):
        return ()
    _, labels_HW = cv2.connectedComponents(region_HW.astype(np.uint8), connectivity=8)
    edge = np.unique(np.concatenate([labels_HW[0], labels_HW[-1], labels_HW[:, 0], labels_HW[:, -1]]))
    outlines, collars = [ground_N2], 0
    for label in edge[edge > 0]:
        part_HW = labels_HW == label
        outside_px = int((part_HW & near_HW & (hull_HW == 0)).sum())
        if outside_px and _measure_straightness(part_HW, hull_HW > 0) >= MIN_STRAIGHT_FRAC:
            collars += outside_px
        elif outside_px and (kept_N2 := _find_hull(part_HW.astype(np.uint8))) is not None:
            outlines.append(kept_N2)
    return tuple(outlines) if collars >= MIN_COLLAR_PX else ()


def _is_solid(region_HW: NDArray[np.bool_], hull_HW: NDArray[np.uint8]) -> bool:
    """Tell whether nearly all that lies outside the hull of the ground has the colour of the collar.

    Water and bright sand have it here and there. Beside the ground, compression changes colours.
    """
    side_px = 2 * LOSSY_DILATION_PX + 1
    near_ground_HW = cv2.dilate(hull_HW, np.ones((side_px, side_px), np.uint8)) > 0
    for outside_HW, least in ((~near_ground_HW, MIN_SOLID_FRAC), (hull_HW == 0, MIN_SOLID_BESIDE_FRAC)):
        if outside_HW.any() and region_HW[outside_HW].mean() < least:
            return False
    return True


def _measure_straightness(part_HW: NDArray[np.bool_], hull_HW: NDArray[np.bool_]) -> float:
    """Return along which share of the hull's edge that a region touches the ground begins within `MAX_GAP_PX`."""
    outside_HW = (part_HW & ~hull_HW).astype(np.uint8)
    edge_HW = hull_HW & (cv2.dilate(outside_HW, np.ones((3, 3), np.uint8)) > 0)
    side_px = 2 * MAX_GAP_PX + 1
    near_ground_HW = cv2.dilate((~part_HW).astype(np.uint8), np.ones((side_px, side_px), np.uint8)) > 0
    return float((edge_HW & near_ground_HW).sum() / max(1, edge_HW.sum()))


def _keep_largest(mask_HW: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the largest 8-connected region of a mask."""
    _, labels_HW, stats, _ = cv2.connectedComponentsWithStats(np.asarray(mask_HW, np.uint8), connectivity=8)
    if len(stats) < 2:
        return np.zeros(mask_HW.shape, np.uint8)
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return np.asarray(labels_HW == largest, np.uint8)


def _find_hull(mask_HW: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Return the convex hull of a mask as N2 of (col, row); None for an empty one."""
    rows, cols = np.nonzero(mask_HW)
    if not len(rows):
        return None
    hull = cv2.convexHull(np.column_stack([cols, rows]).astype(np.int32))
    return np.asarray(hull, np.float64).reshape(-1, 2)
