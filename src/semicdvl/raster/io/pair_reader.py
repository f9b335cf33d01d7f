"""Two images of one place, read window by window on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.grid import Grid, find_pixel_offset, intersect_grids
from semicdvl.raster.io.image_reader import ImageReader
from semicdvl.raster.io.inputs import ImageInput, network_timeouts, resolve_input
from semicdvl.raster.io.open_dataset import open_dataset, read_grid
from semicdvl.raster.io.open_image import open_image_reader
from semicdvl.raster.radiometric_normalisation import RadiometricMatch, match_radiometry
from semicdvl.raster.warp import Alignment

GRID_CHOICES = ("before", "after", "finest")
"""Whose pixels the result has, beside those of a raster file."""
NORMALISATIONS = ("none", "match")


@dataclass(frozen=True)
class PairWindow:
    """A window of both dates.

    Attributes:
        t1_HWC: uint8 of date 1, RGB or the bands that were asked for; black where not valid.
        t2_HWC: uint8 of date 2; black where not valid.
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
        before: date 1, on `grid`.
        after: date 2, on `grid`.
        grid: the part of the chosen grid that both images cover.
        notes: what was done to the images that a reader of the result should know.
        alignment: how the after image was moved onto the before image; None: it was not.
        row, col: where the corner of `grid` lies on the whole of the chosen grid.
        radiometric_match: how the after image was brought to the before image's light; None: it was not.
    """

    before: ImageReader
    after: ImageReader
    grid: Grid
    notes: tuple[str, ...]
    alignment: Alignment | None = None
    row: int = 0
    col: int = 0
    radiometric_match: RadiometricMatch | None = None

    @property
    def shape_hw(self) -> tuple[int, int]:
        """Height and width of the overlap in pixels."""
        return self.grid.height, self.grid.width

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance in metres, None for plain images."""
        return self.grid.gsd_m

    def read(self, row: int, col: int, height: int, width: int, *, max_px: int | None = None) -> PairWindow:
        """Return a window of the overlap, which must lie inside it.

        `max_px` reads it decimated (averaged), so that no side of the result is longer.

        Raises:
            InputError: a file is damaged.
        """
        size = None
        if max_px is not None and max(height, width) > max_px:
            step = max(height, width) / max_px
            size = max(1, round(height / step)), max(1, round(width / step))
        before = self.before.read(row, col, height, width, shape_hw=size)
        return _mask_window(before, self.after.read(row, col, height, width, shape_hw=size))

    def read_overview(self, *, max_px: int) -> PairWindow:
        """Return the whole overlap, decimated so that no side is longer than `max_px`."""
        return self.read(0, 0, *self.shape_hw, max_px=max_px)

    def select_rgb(self) -> RasterPair:
        """Return the same pair, with the same file handles, showing red, green and blue only: what pictures are of."""
        return replace(self, before=self.before.select_rgb(), after=self.after.select_rgb())

    def reopen(self) -> RasterPair:
        """Return the same pair with file handles of its own, for another thread; nothing is measured again."""
        first = self.before.transfer_to(open_image_reader(self.before.input, bands=self.before.bands))
        try:
            second = self.after.transfer_to(open_image_reader(self.after.input, bands=self.after.bands))
        except BaseException:
            first.close()
            raise
        return replace(self, before=first, after=second)

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


def open_pair(
    before: ImageInput,
    after: ImageInput,
    *,
    bands: Sequence[int] | None = None,
    after_bands: Sequence[int] | None = None,
    grid: str | Path = "before",
    normalise: str = "none",
    alignment: Alignment | None = None,
) -> RasterPair:
    """Open two images of one place on one grid.

    Where CRS, resolution or origin differ from the chosen grid, an image is warped (cubic) onto its pixels over the
    part that both cover; where the grids differ by whole pixels only, it is read as it is. 8-bit data pass unchanged;
    any other type gets one linear stretch per date and band (0.5 % to 99.5 %), measured once over the whole overlap, so
    that no tile is stretched by itself. No data is what a tag, an alpha band, a mask or NaN says, and solid black
    borders without a tag (`raster.io.nodata_border`).

    Args:
        before: date 1: a GeoTIFF or anything else that GDAL reads, an address, a folder, or several files that make a
            mosaic (`raster.io.inputs.resolve_input`); plain PNG and JPEG have no CRS.
        after: date 2, likewise.
        bands: 1-based numbers of the bands to read in both dates, three or more, red, green and blue first; None: as
            tagged, or the first three.
        after_bands: the same in date 2, where its bands lie in another order.
        grid: whose pixels the result has: "before", "after", "finest" (the date with the smaller pixels), or a raster
            file.
        normalise: "match" brings the after image to the before image's light
        (`raster.radiometric_normalisation`), "none" does not.
        alignment: how far the after image lies beside the before image (`raster.registration.estimate` measures it):
        it is
        read from there.

    Raises:
        InputError: a file is missing, out of reach, no image, damaged, has fewer than 3 bands, has no CRS while the
            other has one, has no data where the other lies, or the two don't overlap (plain images: differ in size).
        ConfigError: an unknown way to normalise, or bands that differ in number.
    """
    _check_options(bands, after_bands, normalise)
    first = open_image_reader(before, bands=bands)
    opened = [first]
    try:
        second = open_image_reader(after, bands=bands if after_bands is None else after_bands)
        opened.append(second)
        whole = _choose_grid(first, second, grid)
        common, there = _find_common_grids(first, second, whole, alignment)
        first, second = first.on_grid(common), second.on_grid(there)
        row, col = find_pixel_offset(whole, common) or (0, 0)
        if alignment is not None and alignment.field is not None:
            second = replace(second, displacement=alignment.field.relative_to(row, col))
        first, second = first.prepare(), second.prepare()
        light: RadiometricMatch | None = None
        notes = _describe_processing(first, second, opened, alignment)
        if normalise == "match":
            second, light = match_radiometry(first, second)
            notes.append(_describe_radiometric_match(light))
        return RasterPair(first, second, common, tuple(notes), alignment, row, col, light)
    except BaseException:
        for date in opened:
            date.close()
        raise


def _check_options(bands: Sequence[int] | None, after_bands: Sequence[int] | None, normalise: str) -> None:
    if normalise not in NORMALISATIONS:
        raise ConfigError(f"normalise is {normalise!r}; wanted one of {', '.join(NORMALISATIONS)}.")
    wanted = 3 if bands is None else len(bands)
    if after_bands is not None and len(after_bands) != wanted:
        raise ConfigError(f"{wanted} bands of the before image, {len(after_bands)} of the after image; give as many.")


def _choose_grid(first: ImageReader, second: ImageReader, grid: str | Path) -> Grid:
    """Return the whole grid whose pixels the result has."""
    if grid == "after":
        return second.grid
    if grid == "finest":
        sizes = [date.grid.gsd_m for date in (first, second)]
        return second.grid if sizes[0] and sizes[1] and sizes[1] < sizes[0] else first.grid
    if grid == "before":
        return first.grid
    name = resolve_input(grid)
    if len(name.gdal_names) != 1:
        raise InputError(
            name.display_name, "is no single raster", f"Give one of {', '.join(GRID_CHOICES)}, or a raster file"
        )
    with network_timeouts(name), open_dataset(name.gdal_names[0], display_name=name.display_name) as source:
        if source.crs is None:
            raise InputError(
                name.display_name, "has no CRS, so it is no grid to put images on", "Give a GeoTIFF with a CRS"
            )
        return read_grid(source)


def _find_common_grids(
    first: ImageReader, second: ImageReader, whole: Grid, move: Alignment | None
) -> tuple[Grid, Grid]:
    """Return the part of a grid that both dates cover, and where the second date shows it; or say why not."""
    for date, other in ((first, second), (second, first)):
        if date.grid.crs is None and other.grid.crs is not None:
            remedy = "Write its CRS into it (`gdal_edit.py -a_srs EPSG:...`), or give both images without one"
            raise InputError(
                date.input.display_name, f"has no CRS, but {other.path.name} has {_crs_name(other.grid)}", remedy
            )
    if first.grid.crs is None and (first.grid.height, first.grid.width) != (second.grid.height, second.grid.width):
        sizes = [f"{date.grid.width} x {date.grid.height} px" for date in (second, first)]
        remedy = (
            "plain images must show the same ground pixel by pixel; cut or resize them, or give GeoTIFFs with a CRS"
        )
        raise InputError(second.input.display_name, f"is {sizes[0]}, but {first.path.name} is {sizes[1]}", remedy)
    if first.grid.crs is None:
        whole = first.grid
    base = intersect_grids(whole, first.grid)
    by = (0.0, 0.0) if move is None else (move.row_px, move.col_px)
    seen = None if base is None else base if move is None else base.window(*by, base.height, base.width)
    there = None if seen is None else intersect_grids(seen, second.grid)
    if base is None and whole is not second.grid:
        raise InputError(
            first.input.display_name, f"does not overlap the grid ({_describe_extent(whole)})", "Give another --grid"
        )
    if base is None or seen is None or there is None or (at := find_pixel_offset(seen, there)) is None:
        raise InputError(
            second.input.display_name,
            f"does not overlap {first.path.name} ({_describe_extent(second.grid)} against {_describe_extent(first.grid)})",
            "Give two images of one place, and check that both CRSs are right",
        )
    return base.window(*at, there.height, there.width), there


def _mask_window(
    first: tuple[NDArray[np.uint8], NDArray[np.bool_]], second: tuple[NDArray[np.uint8], NDArray[np.bool_]]
) -> PairWindow:
    """Put both dates together and blacken what either does not show."""
    (t1_HWC, valid_t1_HW), (t2_HWC, valid_t2_HW) = first, second
    valid_HW = valid_t1_HW & valid_t2_HW
    if not valid_HW.all():
        t1_HWC, t2_HWC = t1_HWC * valid_HW[..., None], t2_HWC * valid_HW[..., None]
    return PairWindow(t1_HWC, t2_HWC, valid_HW)


def _describe_processing(
    first: ImageReader, second: ImageReader, opened: list[ImageReader], move: Alignment | None
) -> list[str]:
    """Say in words what was done to the images."""
    notes = []
    if first.grid.crs is None:
        notes.append("The images carry no CRS: the results carry none either, and the images are taken as aligned.")
    if move is not None:
        notes.append(f"Aligned: the after image lay {move} of the before image and was read from there.")
    notes += _describe_warping(first, second, moved=move is not None)
    for date, was in zip((first, second), opened, strict=True):
        share = date.grid.height * date.grid.width / (was.grid.height * was.grid.width)
        if date is first and not date.warped and share < 0.995:
            notes.append(f"The images overlap on {share:.0%} of {date.path.name}; the rest has no result.")
        if date.stretch is not None:
            kind = was.dataset.dtypes[0]
            notes.append(f"{date.path.name} is {kind}: stretched once to 8 bit over the whole overlap, band by band.")
        black = date.measure_border_frac()
        if black > 0:
            notes.append(f"{date.path.name} has a black border without a no-data tag ({black:.1%}); taken as no data.")
    return notes


def _describe_warping(first: ImageReader, second: ImageReader, *, moved: bool) -> list[str]:
    """Say which images were resampled; a move says so of the after image by itself."""
    if first.warped and second.warped and not moved:
        return ["Both images were resampled (cubic) onto the grid that was asked for."]
    if first.warped:
        return ["The before image was resampled (cubic) onto the grid that was asked for."]
    if second.warped and not moved:
        return ["The grids of the two images differ: the after image was resampled (cubic) onto the before image."]
    return []


def _describe_radiometric_match(light: RadiometricMatch | None) -> str:
    if light is None:
        return "The after image could not be matched to the before image's light: too little of them is alike."
    return f"The after image was matched to the before image's light, band by band: {light} (of 255)."


def _crs_name(grid: Grid) -> str:
    """Return `EPSG:32615`, or the CRS's name where it has no code."""
    code = grid.crs.to_epsg() if grid.crs else None
    return f"EPSG:{code}" if code else "a CRS of its own"


def _describe_extent(grid: Grid) -> str:
    left, bottom, right, top = (f"{value:.6g}" for value in grid.bounds)
    return f"{_crs_name(grid)} x {left}..{right}, y {bottom}..{top}"
