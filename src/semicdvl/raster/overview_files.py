"""Overviews in a file beside an image (`a.tif.ovr`), which may be those of another image.

GDAL takes the smaller copies in such a file for those of the image whatever they show, and reads from them whenever
fewer pixels are asked for: for a stretch, a shift, a picture. After an image was replaced or edited they show what it
was. They are used only if they are not older than the image, have its shape, type and bands, and agree with its pixels
where a few windows are compared. What is read in full resolution never comes from them. Overviews inside an image are
trusted: they are written together with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.windows import Window

from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced

OVERVIEW_SUFFIXES = frozenset({".ovr", ".rrd", ".aux"})
COMPANION_SUFFIXES = (".ovr", ".msk", ".OVR", ".MSK")
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NO_OVERVIEWS = {"OVERVIEW_LEVEL": "NONE"}
"""GDAL's option to open an image without its overviews."""
MAX_AGE_S = 2.0
"""Copies of an image and of its overviews may be so far apart in time; FAT file systems keep time in steps of 2 s."""
WINDOWS_PER_SIDE = 3
MAX_WINDOW_PX = 256
"""Side of the windows of the image that are compared."""
MAX_OUTSIDE_FRAC = 0.1
"""Share of an overview's pixels that may lie outside of the values that they stand for: compression, sharpening."""
TOLERANCE_FRAC = 0.1
"""Part of the range of values around a pixel by which its overview may lie beyond it."""
STEP_FRAC = 0.02
"""The same of 8 bits, or of the range of a window: what compression changes."""


def list_overview_files(path: Path) -> list[Path]:
    """Return the files beside an image in which GDAL looks for overviews of it."""
    names = (path.with_name(path.name + suffix) for suffix in OVERVIEW_SUFFIXES)
    others = (path.with_suffix(suffix) for suffix in OVERVIEW_SUFFIXES)
    return [one for one in (*names, *others) if one != path and one.is_file()]


def find_foreign_companion(path: Path) -> Path | None:
    """Return a file beside an image that GDAL would open as its overviews or mask, and that is no TIFF.

    GDAL takes whatever format it finds there: a virtual raster would lead to other files.
    """
    for suffix in COMPANION_SUFFIXES:
        companion = path.with_name(path.name + suffix)
        if not companion.exists():
            continue
        if not companion.is_file():
            return companion
        with companion.open("rb") as handle:
            if handle.read(4) not in TIFF_BEGINNINGS:
                return companion
        if (found := find_foreign_companion(companion)) is not None:
            return found
    return None


def find_overview_fault(dataset: Any, path: Path, *, by_age: bool = True) -> str | None:
    """Say why the overviews beside an open image cannot be trusted; None if there are none or nothing is wrong.

    Args:
        dataset: the image, opened with its overviews.
        path: its file.
        by_age: whether overviews that are older than the image are a fault, whatever they show.
    """
    beside = list_overview_files(path)
    if not beside or not any(dataset.overviews(band) for band in dataset.indexes):
        return None
    stamps = tuple((str(one), one.stat().st_mtime_ns, one.stat().st_size) for one in (path, *beside))
    return (_find_age_fault(stamps) if by_age else None) or _find_fault(dataset.driver, stamps)


_Stamps = tuple[tuple[str, int, int], ...]
"""Name, time of change and size of an image and of the files of its overviews."""


def _find_age_fault(stamps: _Stamps) -> str | None:
    """Say which file of overviews is older than the image."""
    path, *beside = stamps
    for name, changed_ns, _ in beside:
        if changed_ns + MAX_AGE_S * 1e9 < path[1]:
            return f"{Path(name).name} is older than the image, so its overviews may show what the image was"
    return None


@lru_cache(maxsize=4096)
def _find_fault(driver: str, stamps: _Stamps) -> str | None:
    """Say what is wrong with the overviews; remembered: training opens files often."""
    path, *beside = stamps
    name = Path(beside[0][0]).name
    try:
        with ExitStack() as opened:
            opened.enter_context(ignore_not_georeferenced())
            image = opened.enter_context(DatasetReader(path[0], driver=[driver], **NO_OVERVIEWS))
            overview = opened.enter_context(DatasetReader(path[0], driver=[driver], OVERVIEW_LEVEL="0"))
            if not _fits(image, overview):
                return f"the overviews in {name} have another shape, type or number of bands than the image"
            if _measure_outside_frac(image, overview) > MAX_OUTSIDE_FRAC:
                return f"the overviews in {name} show something else than the image"
    except RasterioError:
        return f"the overviews in {name} cannot be read"
    return None


def _fits(image: Any, overview: Any) -> bool:
    """Tell whether an overview has the bands, the type and the shape of an image, to a pixel of rounding."""
    if image.count != overview.count or image.dtypes != overview.dtypes:
        return False
    shorter, longer = sorted([image.height, image.width])
    wanted = overview.height * image.width / image.height
    return bool(overview.width < image.width and abs(overview.width - wanted) <= 1 + longer / shorter)


def _measure_outside_frac(image: Any, overview: Any) -> float:
    """Return the share of an overview's pixels that lie outside of the values of the image around them."""
    scale_hw = image.height / overview.height, image.width / overview.width
    side = max(2, int(MAX_WINDOW_PX / max(scale_hw)))
    outside = total = 0
    for row in _spread(overview.height - side):
        for col in _spread(overview.width - side):
            height, width = min(side, overview.height), min(side, overview.width)
            shown_CHW = overview.read(window=Window(col, row, width, height)).astype(np.float64)
            low_CHW, high_CHW = _read_range(image, row, col, shown_CHW.shape[1:], scale_hw)
            slack_CHW = _measure_slack(image, low_CHW, high_CHW)
            outside += int(((shown_CHW < low_CHW - slack_CHW) | (shown_CHW > high_CHW + slack_CHW)).sum())
            total += shown_CHW.size
    return outside / max(total, 1)


def _spread(last: int) -> list[int]:
    """Return a few starts of windows from 0 to `last`, evenly spaced."""
    return sorted({max(0, round(last * at / (WINDOWS_PER_SIDE - 1))) for at in range(WINDOWS_PER_SIDE)})


def _measure_slack(image: Any, low_CHW: NDArray[np.float64], high_CHW: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much an overview may lie beyond the values that it stands for; numbers of a palette by nothing."""
    range_CHW = high_CHW - low_CHW
    if image.colorinterp[0] == ColorInterp.palette:
        return np.zeros_like(range_CHW)
    finite_N = np.concatenate([part_CHW[np.isfinite(part_CHW)] for part_CHW in (low_CHW, high_CHW)])
    span = 255.0 if image.dtypes[0] == "uint8" else float(np.ptp(finite_N)) if finite_N.size else 0.0
    return TOLERANCE_FRAC * range_CHW + STEP_FRAC * span


def _read_range(
    image: Any, row: int, col: int, shape_hw: tuple[int, ...], scale_hw: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the least and the largest value around each pixel of a window of the overview, CHW.

    Around: on the ground of the pixel and of its neighbours, which other ways of resampling reach.
    """
    rows, cols = (
        [
            (max(0, math.floor((first + at - 1) * scale)), min(length, math.ceil((first + at + 2) * scale)))
            for at in range(count)
        ]
        for first, count, scale, length in zip((row, col), shape_hw, scale_hw, (image.height, image.width), strict=True)
    )
    window = Window(cols[0][0], rows[0][0], cols[-1][1] - cols[0][0], rows[-1][1] - rows[0][0])
    values_CHW = image.read(window=window).astype(np.float64)
    low_CHW, high_CHW = (
        _reduce(_reduce(values_CHW, rows, 1, choose), cols, 2, choose) for choose in (np.fmin, np.fmax)
    )
    return low_CHW, high_CHW


def _reduce(
    values_CHW: NDArray[np.float64], spans: Sequence[tuple[int, int]], axis: int, choose: Callable[..., Any]
) -> NDArray[np.float64]:
    """Reduce spans of rows or columns, counted from the first span's start, to one each."""
    start = spans[0][0]
    parts = [choose.reduce(values_CHW.take(range(low - start, high - start), axis), axis) for low, high in spans]  # type: ignore[attr-defined]
    return np.stack(parts, axis)
