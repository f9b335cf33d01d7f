"""Two images of one place, read window by window on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import InputError
from semicdvl.rasters.date import Date
from semicdvl.rasters.grid import Grid, offset_px, overlap
from semicdvl.rasters.move import Move
from semicdvl.rasters.opening import open_date


@dataclass(frozen=True)
class PairWindow:
    """A window of both dates.

    Attributes:
        t1_HWC: uint8 RGB of date 1; black where not valid.
        t2_HWC: uint8 RGB of date 2; black where not valid.
        valid_HW: False where either date has no data. Both images are black there, so that the end of one image
            never looks like a change.
    """

    t1_HWC: NDArray[np.uint8]
    t2_HWC: NDArray[np.uint8]
    valid_HW: NDArray[np.bool_]


@dataclass(frozen=True)
class RasterPair:
    """An opened pair; close it, or use it in a `with`. Not to be shared between threads (GDAL's handles are not).

    Attributes:
        before: date 1.
        after: date 2, on the grid of date 1.
        grid: the part of date 1's grid that both images cover.
        notes: what was done to the images that a reader of the result should know.
        move: how the after image was moved onto the before image; None: it was not.
    """

    before: Date
    after: Date
    grid: Grid
    notes: tuple[str, ...]
    move: Move | None = None

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the overlap in pixels."""
        return self.grid.height, self.grid.width

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance in metres, None for plain images."""
        return self.grid.gsd_m

    def read(self, row: int, col: int, height: int, width: int, *, most_px: int | None = None) -> PairWindow:
        """Return a window of the overlap, which must lie inside it.

        `most_px` reads it decimated (averaged), so that no side of the result is longer.

        Raises:
            InputError: a file is damaged.
        """
        size = None
        if most_px is not None and max(height, width) > most_px:
            step = max(height, width) / most_px
            size = max(1, round(height / step)), max(1, round(width / step))
        before = self.before.read(row, col, height, width, shape_hw=size)
        return _joined(before, self.after.read(row, col, height, width, shape_hw=size))

    def overview(self, *, most_px: int) -> PairWindow:
        """Return the whole overlap, decimated so that no side is longer than `most_px`."""
        return self.read(0, 0, *self.shape_hw, most_px=most_px)

    def close(self) -> None:
        """Let go of both files."""
        self.after.close()
        self.before.close()

    def __enter__(self) -> RasterPair:
        """Return the pair itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pair."""
        self.close()


def open_pair(before: Path, after: Path, *, bands: Sequence[int] | None = None, move: Move | None = None) -> RasterPair:
    """Open two images of one place on the grid of the first.

    Where CRS, resolution or origin differ, the after image is warped (cubic) onto the before image's pixels over the
    part that both cover; where the grids differ by whole pixels only, it is read as it is. 8-bit data pass unchanged;
    any other type gets one linear stretch per date and band (0.5 % to 99.5 %), measured once over the whole overlap, so
    that no tile is stretched by itself. No data is what a tag, an alpha band or a mask says, and solid black borders
    without a tag (`rasters.border`).

    Args:
        before: image of date 1: a GeoTIFF or anything else that GDAL reads; plain PNG and JPEG have no CRS.
        after: image of date 2.
        bands: 1-based numbers of red, green and blue in both files; None: as tagged, or the first three.
        move: how far the after image lies beside the before image (`rasters.align` measures it): it is read from there.

    Raises:
        InputError: a file is missing, no image, damaged, has fewer than 3 bands, has no CRS while the other has one,
            or the two don't overlap (plain images: differ in size).
    """
    first = open_date(Path(before), bands=bands)
    opened = [first]
    try:
        second = open_date(Path(after), bands=bands)
        opened.append(second)
        grid, there = _common(first, second, move)
        first, second = first.on(grid), replace(second.on(there), grid=grid)
        if move is not None and move.field is not None:
            second = replace(second, field=move.field.seen_from(first.row, first.col))
        first, second = first.prepared(), second.prepared()
        return RasterPair(first, second, grid, _notes(first, second, opened, move), move)
    except BaseException:
        for date in opened:
            date.source.close()
        raise


def _common(first: Date, second: Date, move: Move | None) -> tuple[Grid, Grid]:
    """Return the part of the first date's grid that both cover, and where the second date shows it; or say why not."""
    for date, other in ((first, second), (second, first)):
        if date.grid.crs is None and other.grid.crs is not None:
            remedy = "Write its CRS into it (`gdal_edit.py -a_srs EPSG:...`), or give both images without one"
            raise InputError(date.path, f"has no CRS, but {other.path.name} has {_crs_name(other.grid)}", remedy)
    if first.grid.crs is None and (first.grid.height, first.grid.width) != (second.grid.height, second.grid.width):
        sizes = [f"{date.grid.width} x {date.grid.height} px" for date in (second, first)]
        remedy = (
            "plain images must show the same ground pixel by pixel; cut or resize them, or give GeoTIFFs with a CRS"
        )
        raise InputError(second.path, f"is {sizes[0]}, but {first.path.name} is {sizes[1]}", remedy)
    by = (0.0, 0.0) if move is None else (move.row_px, move.col_px)
    seen = first.grid if move is None else first.grid.part(*by, first.grid.height, first.grid.width)
    there = overlap(seen, second.grid)
    at = None if there is None else offset_px(seen, there)
    if there is None or at is None:
        raise InputError(
            second.path,
            f"does not overlap {first.path.name} ({_place(second.grid)} against {_place(first.grid)})",
            "Give two images of one place, and check that both CRSs are right",
        )
    return first.grid.part(*at, there.height, there.width), there


def _joined(
    first: tuple[NDArray[np.uint8], NDArray[np.bool_]], second: tuple[NDArray[np.uint8], NDArray[np.bool_]]
) -> PairWindow:
    """Put both dates together and blacken what either does not show."""
    (t1_HWC, valid_t1_HW), (t2_HWC, valid_t2_HW) = first, second
    valid_HW = valid_t1_HW & valid_t2_HW
    if not valid_HW.all():
        t1_HWC, t2_HWC = t1_HWC * valid_HW[..., None], t2_HWC * valid_HW[..., None]
    return PairWindow(t1_HWC, t2_HWC, valid_HW)


def _notes(first: Date, second: Date, opened: list[Date], move: Move | None) -> tuple[str, ...]:
    """Say in words what was done to the images."""
    notes = []
    if first.grid.crs is None:
        notes.append("The images carry no CRS: the results carry none either, and the images are taken as aligned.")
    if move is not None:
        notes.append(f"Aligned: the after image lay {move} of the before image and was read from there.")
    elif second.warped:
        notes.append("The grids of the two images differ: the after image was resampled (cubic) onto the before image.")
    for date, was in zip((first, second), opened, strict=True):
        share = date.grid.height * date.grid.width / (was.grid.height * was.grid.width)
        if date is first and share < 0.995:
            notes.append(f"The images overlap on {share:.0%} of {date.path.name}; the rest has no result.")
        if date.stretch is not None:
            kind = was.source.dtypes[0]
            notes.append(f"{date.path.name} is {kind}: stretched once to 8 bit over the whole overlap, band by band.")
        black = date.black_share()
        if black > 0:
            notes.append(f"{date.path.name} has a black border without a no-data tag ({black:.1%}); taken as no data.")
    return tuple(notes)


def _crs_name(grid: Grid) -> str:
    """Return `EPSG:32615`, or the CRS's name where it has no code."""
    code = grid.crs.to_epsg() if grid.crs else None
    return f"EPSG:{code}" if code else "a CRS of its own"


def _place(grid: Grid) -> str:
    left, bottom, right, top = (f"{value:.6g}" for value in grid.bounds)
    return f"{_crs_name(grid)} x {left}..{right}, y {bottom}..{top}"
