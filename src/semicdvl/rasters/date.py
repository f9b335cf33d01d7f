"""One date of a pair: an opened image, read as 8-bit RGB with a mask, on the grid of the pair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from semicdvl.errors import InputError
from semicdvl.rasters.border import BlackBorder, find
from semicdvl.rasters.grid import Grid, offset_px
from semicdvl.rasters.move import OffsetField, moved, reach

STRETCH_PERCENTILES = (0.5, 99.5)
SAMPLE_PX = 1024
"""The stretch is measured on a decimated read of at most this many pixels a side."""
GROW_PX = 2
"""A black border is taken this much wider: pixels beside it are mixed by resampling and compression."""
ANY_PLANE, NORTH_UP = CRS.from_epsg(3857), Affine.scale(1, -1)
"""Plain images have neither; GDAL wants both before it moves their pixels by a part of one."""
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
        field: small offsets from place to place by which pixels are moved when they are read; None: none.
    """

    path: Path
    source: Any
    bands: tuple[int, int, int]
    grid: Grid
    row: int = 0
    col: int = 0
    warped: bool = False
    stretch: Stretch | None = None
    border: BlackBorder = dataclass_field(default_factory=lambda: BlackBorder(0, 0))
    field: OffsetField | None = None

    def read(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return a window of the grid as uint8 HWC RGB with its HW mask of valid pixels.

        `shape_hw` reads it decimated (averaged) to that size.
        """
        if self.field is None:
            return self._read(row, col, height, width, shape_hw=shape_hw)
        grid_hw = self.grid.height, self.grid.width
        top, left, bottom, right = reach(self.field, row, col, height, width, shape_hw=grid_hw)
        scale_hw = (1.0, 1.0) if shape_hw is None else (shape_hw[0] / height, shape_hw[1] / width)
        wide_hw = round((bottom - top) * scale_hw[0]), round((right - left) * scale_hw[1])
        image_HWC, valid_HW = self._read(
            top, left, bottom - top, right - left, shape_hw=None if shape_hw is None else wide_hw
        )
        tall, wide = shape_hw or (height, width)
        rows, cols = row + np.arange(tall) / scale_hw[0], col + np.arange(wide) / scale_hw[1]
        offsets_2HW = self.field.at(rows, cols) * np.array(scale_hw)[:, None, None]
        start = (row - top) * scale_hw[0], (col - left) * scale_hw[1]
        return moved(image_HWC, valid_HW, offsets_2HW, row=start[0], col=start[1])

    def _read(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a window as it lies in the source."""
        resampling = Resampling.nearest if shape_hw is None else Resampling.average
        data_CHW, valid_HW = self._raw(row, col, height, width, shape_hw=shape_hw, resampling=resampling)
        image_CHW = data_CHW if self.stretch is None else self.stretch(data_CHW)
        if self.border.strips:
            valid_HW &= ~self.black(row, col, height, width, shape_hw=shape_hw)
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
                self.path, f"pixels cannot be read ({reason(error)}), it may be truncated", BROKEN
            ) from error
        valid_HW = mask_HW > 0
        if data_CHW.dtype.kind == "f":
            valid_HW &= np.isfinite(data_CHW).all(axis=0)
        return data_CHW, valid_HW

    def black(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None
    ) -> NDArray[np.bool_]:
        """Return the untagged black border in a window, grown by `GROW_PX`."""
        if not self.border.strips:
            return np.zeros(shape_hw or (height, width), bool)
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
        plain = grid.crs is None
        flags = self.source.mask_flag_enums[self.bands[0] - 1]
        tagged = self.source.nodata is not None or MaskFlags.alpha in flags
        view = WarpedVRT(
            self.source,
            src_crs=ANY_PLANE if plain else None,
            src_transform=NORTH_UP @ self.grid.transform if plain else None,
            crs=ANY_PLANE if plain else grid.crs,
            transform=NORTH_UP @ grid.transform if plain else grid.transform,
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
        data_CHW, valid_HW = self.sample()
        black_HW = (data_CHW == 0).all(axis=0)
        if valid_HW.any() and (black_HW | ~valid_HW).all():
            raise InputError(
                self.path,
                "has no pixel with data: it is black all over where the other image lies",
                "Look at it, and give another one",
            )
        if not (valid_HW & black_HW).any():
            return BlackBorder(height, width)

        def is_black(row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
            data_CHW, valid_HW = self._raw(row, col, height, width)
            return ~valid_HW | (data_CHW == 0).all(axis=0)  # type: ignore[no-any-return]

        return find(is_black, height=height, width=width)

    def black_share(self) -> float:
        """Return the share of the grid that is black border and not tagged as no data, from a decimated read."""
        if not self.border.strips:
            return 0.0
        valid_HW = self.sample()[1]
        border_HW = self.black(0, 0, self.grid.height, self.grid.width, shape_hw=valid_HW.shape)
        return float((valid_HW & border_HW).mean())

    def sample(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
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


def _measured_stretch(date: Date) -> Stretch:
    """Measure the stretch on a decimated read of the whole overlap, so that every tile gets the same one."""
    data_CHW, valid_HW = date.sample()
    if not valid_HW.any():
        return Stretch(np.zeros(3), np.ones(3))
    seen_HW = valid_HW & (data_CHW != 0).any(axis=0)  # an untagged black border would drag the lower limit to 0
    values_CN = data_CHW[:, seen_HW if seen_HW.any() else valid_HW].astype(np.float64)
    low_C, high_C = np.percentile(values_CN, STRETCH_PERCENTILES, axis=1)
    return Stretch(low_C, high_C)


def reason(error: BaseException) -> str:
    """Return the first cause's first line: rasterio hides GDAL's own words behind "see previous exception"."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
