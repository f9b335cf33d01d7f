"""One date of a pair: an opened image, read as 8-bit bands with a mask, on the grid of the pair."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid, offset_px
from semicdvl.raster.io.inputs import ImageName, patience
from semicdvl.raster.io.nodata_border import BlackBorder, find
from semicdvl.raster.io.open_dataset import BROKEN, reason
from semicdvl.raster.registration.warp import OffsetField, moved, reach

STRETCH_PERCENTILES = (0.5, 99.5)
SAMPLE_PX = 1024
"""The stretch is measured on a decimated read of at most this many pixels a side."""
GROW_PX = 2
"""A black border is taken this much wider: pixels beside it are mixed by resampling and compression."""
ANY_PLANE, NORTH_UP = CRS.from_epsg(3857), Affine.scale(1, -1)
"""Plain images have neither; GDAL wants both before it moves their pixels by a part of one."""


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
class Sample:
    """A decimated read of a whole date: raw values, where they are data, and where an untagged black border lies."""

    data_CHW: NDArray[Any]
    valid_HW: NDArray[np.bool_]
    black_HW: NDArray[np.bool_]

    @property
    def seen_HW(self) -> NDArray[np.bool_]:
        """Where there is data and no border."""
        return self.valid_HW & ~self.black_HW


@dataclass(frozen=True)
class Date:
    """One image of a pair, opened.

    Attributes:
        name: what was given, and what GDAL opens.
        source: the opened file or mosaic, or a warped view of it; holds file handles.
        bands: the 1-based numbers of the bands that are read; red, green and blue come first.
        grid: the grid on which it is read: the file's own, or the pair's.
        file_grid: the file's own grid.
        row, col: where the grid's corner lies in `source`.
        warped: whether pixels are resampled.
        stretch: how data values become 8-bit; None for 8-bit data, which pass as they are.
        border: untagged black border; empty until `prepared`.
        sampled: what `sample` returns once `prepared`: it is read only once.
        field: small offsets from place to place by which pixels are moved when they are read; None: none.
        held: what must be closed after the source: the views of a mosaic.
    """

    name: ImageName
    source: Any
    bands: tuple[int, ...]
    grid: Grid
    file_grid: Grid
    row: int = 0
    col: int = 0
    warped: bool = False
    stretch: Stretch | None = None
    border: BlackBorder = dataclass_field(default_factory=lambda: BlackBorder(0, 0))
    sampled: Sample | None = None
    field: OffsetField | None = None
    held: ExitStack | None = None

    @property
    def path(self) -> Path:
        """The file, or what stands for several or for an address: for its name in titles."""
        return Path(self.name.shown)

    def read(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return a window of the grid as uint8 HWC with its HW mask of valid pixels.

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
        return self._data(self.source, window, shape_hw or (height, width), resampling)

    def _data(
        self, source: Any, window: Window | None, size_hw: tuple[int, int], resampling: Resampling
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read raw values and where they are data."""
        shape = (len(self.bands), *size_hw)
        try:
            with patience(self.name):
                data_CHW = source.read(list(self.bands), window=window, out_shape=shape, resampling=resampling)
                mask_HW = source.dataset_mask(window=window, out_shape=size_hw)
        except RasterioError as error:
            remote = self.name.remote
            problem = f"pixels cannot be read ({reason(error)}), it may be {'out of reach' if remote else 'truncated'}"
            raise InputError(self.name.shown, problem, "Check the network" if remote else BROKEN) from error
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
        return self.border.grown(row, col, height, width, by_px=GROW_PX, shape_hw=shape_hw or (height, width))

    def on(self, grid: Grid) -> Date:
        """Return this date read on another grid: shifted by whole pixels where that is exact, else warped (cubic)."""
        place = offset_px(self.grid, grid)
        if place is not None:
            return replace(self, grid=grid, row=place[0], col=place[1])
        return replace(self, source=self._view(self.source, grid, Resampling.cubic), grid=grid, warped=True)

    def _view(self, source: Any, grid: Grid, resampling: Resampling) -> WarpedVRT:
        """Return the file as it looks on another grid."""
        plain = grid.crs is None
        flags = source.mask_flag_enums[self.bands[0] - 1]
        tagged = source.nodata is not None or MaskFlags.alpha in flags
        return WarpedVRT(
            source,
            src_crs=ANY_PLANE if plain else None,
            src_transform=NORTH_UP @ self.file_grid.transform if plain else None,
            crs=ANY_PLANE if plain else grid.crs,
            transform=NORTH_UP @ grid.transform if plain else grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=resampling,
            add_alpha=not tagged,  # otherwise ground outside the file would read as valid black
        )

    def in_colour(self) -> Date:
        """Return the same date, with the same file handles, with red, green and blue only."""
        if len(self.bands) == 3:
            return self
        stretch, sampled = self.stretch, self.sampled
        return replace(
            self,
            bands=self.bands[:3],
            stretch=None if stretch is None else Stretch(stretch.low_C[:3], stretch.high_C[:3]),
            sampled=None if sampled is None else replace(sampled, data_CHW=sampled.data_CHW[:3]),
        )

    def like(self, fresh: Date) -> Date:
        """Return the same file, opened anew, on this date's grid and with all that was measured of it."""
        return replace(
            fresh.on(self.grid), stretch=self.stretch, border=self.border, sampled=self.sampled, field=self.field
        )

    def prepared(self) -> Date:
        """Return this date with what has to be known of the whole overlap: its stretch and its black border.

        Raises:
            InputError: it has no pixel with data there (as far as the sample shows), or it is damaged.
        """
        ready = replace(self, sampled=self.sample())
        if np.dtype(self.source.dtypes[self.bands[0] - 1]) != np.uint8:
            ready = replace(ready, stretch=_measured_stretch(ready))
        ready = replace(ready, border=ready._find_border())
        if not ready.border.strips:
            return ready
        sample, grid = ready.sample(), ready.grid
        shape_hw = (sample.valid_HW.shape[0], sample.valid_HW.shape[1])
        black_HW = ready.black(0, 0, grid.height, grid.width, shape_hw=shape_hw)
        return replace(ready, sampled=replace(sample, black_HW=black_HW))

    def _find_border(self) -> BlackBorder:
        """Search for an untagged black border; what is tagged as no data links black regions with the edge."""
        height, width = self.grid.height, self.grid.width
        data_CHW, valid_HW = self.sample().data_CHW, self.sample().valid_HW
        black_HW = (data_CHW == 0).all(axis=0)
        if not valid_HW.any() or (black_HW | ~valid_HW).all():
            why = "it is black all over" if valid_HW.any() else "all of it is tagged as no data, transparent or NaN"
            remedy = "Look at it, check its no-data value with `gdalinfo`, and give another one"
            raise InputError(self.name.shown, f"has no pixel with data where the other image lies: {why}", remedy)
        if not (valid_HW & black_HW).any():
            return BlackBorder(height, width)

        def is_black(row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
            data_CHW, valid_HW = self._raw(row, col, height, width)
            return ~valid_HW | (data_CHW == 0).all(axis=0)  # type: ignore[no-any-return]

        return find(is_black, height=height, width=width)

    def black_share(self) -> float:
        """Return the share of the grid that is black border and not tagged as no data, from a decimated read."""
        sample = self.sample()
        return float((sample.valid_HW & sample.black_HW).mean())

    def sample(self) -> Sample:
        """Read the whole grid decimated to `SAMPLE_PX`, by nearest neighbour so that values stay what they are."""
        if self.sampled is not None:
            return self.sampled
        grid = self.grid
        step = max(1.0, max(grid.height, grid.width) / SAMPLE_PX)
        size = max(1, round(grid.height / step)), max(1, round(grid.width / step))
        if not self.warped or step == 1:
            return Sample(*self._raw(0, 0, grid.height, grid.width, shape_hw=size), np.zeros(size, bool))
        with self._view(self.source.src_dataset, grid.coarser(*size), Resampling.nearest) as view:
            return Sample(*self._data(view, None, size, Resampling.nearest), np.zeros(size, bool))

    def close(self) -> None:
        """Let go of the files."""
        if self.warped:
            source = self.source.src_dataset
            self.source.close()
            source.close()
        else:
            self.source.close()
        if self.held is not None:
            self.held.close()


def _measured_stretch(date: Date) -> Stretch:
    """Measure the stretch on a decimated read of the whole overlap, so that every tile gets the same one."""
    data_CHW, valid_HW = date.sample().data_CHW, date.sample().valid_HW
    if not valid_HW.any():
        return Stretch(np.zeros(len(data_CHW)), np.ones(len(data_CHW)))
    seen_HW = valid_HW & (data_CHW != 0).any(axis=0)  # an untagged black border would drag the lower limit to 0
    values_CN = data_CHW[:, seen_HW if seen_HW.any() else valid_HW].astype(np.float64)
    low_C, high_C = np.percentile(values_CN, STRETCH_PERCENTILES, axis=1)
    return Stretch(low_C, high_C)
