"""One date of a pair: an opened image, read as 8-bit RGB with a mask, on the grid of the pair."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from semicdvl.errors import InputError
from semicdvl.rasters.border import BlackBorder, find
from semicdvl.rasters.grid import Grid, offset_px

STRETCH_PERCENTILES = (0.5, 99.5)
SAMPLE_PX = 1024
"""The stretch is measured on a decimated read of at most this many pixels a side."""
GROW_PX = 2
"""A black border is taken this much wider: pixels beside it are mixed by resampling and compression."""
BROKEN = "Copy or download it again; `gdalinfo -checksum FILE` shows whether it is whole"


@dataclass(frozen=True)
class Stretch:
    """Linear map of data values to 0-255, per band."""

    low_C: NDArray[np.float64]
    high_C: NDArray[np.float64]

    def __call__(self, data_CHW: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the data as uint8; values outside the limits are clipped, values that are no number become 0."""
        scale_C = 255.0 / np.maximum(self.high_C - self.low_C, 1e-12)
        scaled_CHW = (data_CHW - self.low_C[:, None, None]) * scale_C[:, None, None]
        image_CHW: NDArray[np.uint8] = np.nan_to_num(np.clip(np.rint(scaled_CHW), 0, 255), nan=0.0).astype(np.uint8)
        return image_CHW


@dataclass(frozen=True)
class Date:
    """One image of a pair, opened.

    Attributes:
        path: the file.
        source: the opened file, or a warped view of it; holds a file handle.
        bands: the 1-based numbers of red, green and blue.
        grid: the grid on which it is read: the file's own, or the pair's.
        row, col: where the grid's corner lies in `source`.
        warped: whether pixels are resampled.
        stretch: how other data than 8-bit become 8-bit; None for 8-bit data, which pass as they are.
        border: untagged black border; empty until `prepared`.
    """

    path: Path
    source: Any
    bands: tuple[int, int, int]
    grid: Grid
    row: int = 0
    col: int = 0
    warped: bool = False
    stretch: Stretch | None = None
    border: BlackBorder = field(default_factory=lambda: BlackBorder(0, 0))

    def read(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return a window of the grid as uint8 HWC RGB with its HW mask of valid pixels.

        `shape_hw` reads it decimated (averaged) to that size.
        """
        resampling = Resampling.nearest if shape_hw is None else Resampling.average
        data_CHW, valid_HW = self._raw(row, col, height, width, shape_hw=shape_hw, resampling=resampling)
        image_CHW = data_CHW if self.stretch is None else self.stretch(data_CHW)
        if self.border.strips:
            valid_HW &= ~self._border(row, col, height, width, shape_hw=shape_hw)
        return np.ascontiguousarray(image_CHW.transpose(1, 2, 0)), valid_HW

    def _raw(
        self,
        row: int,
        col: int,
        height: int,
        width: int,
        *,
        shape_hw: tuple[int, int] | None = None,
        resampling: Resampling = Resampling.nearest,
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        window = Window(col + self.col, row + self.row, width, height)
        size = shape_hw or (height, width)
        try:
            data_CHW = self.source.read(list(self.bands), window=window, out_shape=(3, *size), resampling=resampling)
            mask_HW = self.source.dataset_mask(window=window, out_shape=size)
        except RasterioError as error:
            raise InputError(
                self.path, f"pixels cannot be read ({_reason(error)}), it may be truncated", BROKEN
            ) from error
        valid_HW = mask_HW > 0
        if data_CHW.dtype.kind == "f":
            valid_HW &= np.isfinite(data_CHW).all(axis=0)
        return data_CHW, valid_HW

    def _border(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None
    ) -> NDArray[np.bool_]:
        """Return the black border in a window, grown by `GROW_PX`."""
        wide_HW = self.border.window(row - GROW_PX, col - GROW_PX, height + 2 * GROW_PX, width + 2 * GROW_PX)
        kernel_HW = np.ones((2 * GROW_PX + 1, 2 * GROW_PX + 1), np.uint8)
        grown_HW = cv2.dilate(wide_HW.astype(np.uint8), kernel_HW)[GROW_PX:-GROW_PX, GROW_PX:-GROW_PX]
        if shape_hw is not None:
            grown_HW = cv2.resize(grown_HW, shape_hw[::-1], interpolation=cv2.INTER_NEAREST)
        return grown_HW > 0

    def on(self, grid: Grid) -> Date:
        """Return this date read on another grid: shifted by whole pixels where that is exact, else warped (cubic)."""
        place = offset_px(self.grid, grid)
        if place is not None:
            return replace(self, grid=grid, row=place[0], col=place[1])
        flags = self.source.mask_flag_enums[self.bands[0] - 1]
        tagged = self.source.nodata is not None or MaskFlags.alpha in flags
        view = WarpedVRT(
            self.source,
            crs=grid.crs,
            transform=grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=Resampling.cubic,
            add_alpha=not tagged,  # otherwise ground outside the file would read as valid black
        )
        return replace(self, source=view, grid=grid, warped=True)

    def prepared(self) -> Date:
        """Return this date with what has to be known of the whole overlap: its stretch and its black border."""
        ready = self
        if np.dtype(self.source.dtypes[self.bands[0] - 1]) != np.uint8:
            ready = replace(ready, stretch=_measured_stretch(ready))
        return replace(ready, border=ready._find_border())

    def _find_border(self) -> BlackBorder:
        """Search for an untagged black border; what is tagged as no data links black regions with the edge."""
        height, width = self.grid.height, self.grid.width
        data_CHW, valid_HW = self._sample()
        if not (valid_HW & (data_CHW == 0).all(axis=0)).any():
            return BlackBorder(height, width)

        def is_black(row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
            data_CHW, valid_HW = self._raw(row, col, height, width)
            return ~valid_HW | (data_CHW == 0).all(axis=0)  # type: ignore[no-any-return]

        return find(is_black, height=height, width=width)

    def black_share(self) -> float:
        """Return the share of the grid that is black border and not tagged as no data, from a decimated read."""
        if not self.border.strips:
            return 0.0
        _, valid_HW = self._sample()
        border_HW = self._border(0, 0, self.grid.height, self.grid.width, shape_hw=valid_HW.shape)
        return float((valid_HW & border_HW).mean())

    def _sample(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read the whole grid decimated to `SAMPLE_PX`, by nearest neighbour so that values stay what they are."""
        grid = self.grid
        step = max(1.0, max(grid.height, grid.width) / SAMPLE_PX)
        size = max(1, round(grid.height / step)), max(1, round(grid.width / step))
        return self._raw(0, 0, grid.height, grid.width, shape_hw=size)

    def close(self) -> None:
        """Let go of the file."""
        if self.warped:
            source = self.source.src_dataset
            self.source.close()
            source.close()
        else:
            self.source.close()


def open_date(path: Path, *, bands: Sequence[int] | None = None) -> Date:
    """Open one image.

    Raises:
        InputError: the file is missing, no image, damaged, has fewer than 3 bands, or its grid is rotated or given by
            ground control points only.
    """
    if not path.exists() and not str(path).startswith("/vsi"):
        raise InputError(path, "no such file", "Check the spelling and the folder")
    if path.is_dir():
        raise InputError(path, "is a folder, wanted an image file", "Give a GeoTIFF, PNG or JPEG in it")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            source = rasterio.open(path)
            transform = source.transform
    except RasterioError as error:
        remedy = "Give a GeoTIFF, PNG, JPEG or another raster that GDAL reads"
        raise InputError(path, f"not an image that can be opened ({_reason(error)})", remedy) from error
    try:
        _refuse_broken_png(path, source.driver)
        if source.crs is None and source.gcps[0]:
            raise InputError(path, "placed by ground control points only", "Run `gdalwarp` on it first")
        if source.crs is not None and (transform.b or transform.d):
            raise InputError(path, "its grid is rotated", "Run `gdalwarp` on it first, which turns it north up")
        grid = Grid(source.crs, transform, source.height, source.width)
        return Date(path, source, _rgb(path, source, bands), grid)
    except BaseException:
        source.close()
        raise


def _refuse_broken_png(path: Path, driver: str) -> None:
    """GDAL reads a truncated PNG as if its rest were black; Pillow checks the chunks without decoding."""
    if driver != "PNG":
        return
    try:
        with path.open("rb") as handle:
            PngImageFile(handle).verify()  # not `Image.open`, which takes a large scene for an attack
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(path, f"damaged PNG ({error})", BROKEN) from error


def _rgb(path: Path, source: Any, bands: Sequence[int] | None) -> tuple[int, int, int]:
    """Return the bands to read: those asked for, those tagged red, green and blue, or the first three."""
    if source.count < 3 or (source.count == 3 and ColorInterp.alpha in source.colorinterp):
        word = "band" if source.count == 1 else "bands"
        raise InputError(
            path, f"has {source.count} {word}, wanted red, green and blue", "Give a colour image of 3 or more bands"
        )
    if bands is not None:
        if len(bands) != 3 or not all(1 <= band <= source.count for band in bands):
            text = ",".join(str(band) for band in bands)
            raise InputError(
                path, f"has {source.count} bands, asked for {text}", "Give three numbers from 1, like 4,3,2"
            )
        return bands[0], bands[1], bands[2]
    wanted = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    if all(colour in source.colorinterp for colour in wanted):
        red, green, blue = (source.colorinterp.index(colour) + 1 for colour in wanted)
        return red, green, blue
    return 1, 2, 3


def _measured_stretch(date: Date) -> Stretch:
    """Measure the stretch on a decimated read of the whole overlap, so that every tile gets the same one."""
    data_CHW, valid_HW = date._sample()
    if not valid_HW.any():
        return Stretch(np.zeros(3), np.ones(3))
    seen_HW = valid_HW & (data_CHW != 0).any(axis=0)  # an untagged black border would drag the lower limit to 0
    values_CN = data_CHW[:, seen_HW if seen_HW.any() else valid_HW].astype(np.float64)
    low_C, high_C = np.percentile(values_CN, STRETCH_PERCENTILES, axis=1)
    return Stretch(low_C, high_C)


def _reason(error: BaseException) -> str:
    """Return the first cause's first line: rasterio hides GDAL's own words behind "see previous exception"."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
