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
from semicdvl.raster.grid import Grid, find_pixel_offset
from semicdvl.raster.io.inputs import ResolvedInput, network_timeouts
from semicdvl.raster.io.nodata_border import BlackBorder, find_black_border
from semicdvl.raster.io.open_dataset import DAMAGED_REMEDY, describe_root_cause
from semicdvl.raster.warp import DisplacementField, find_source_window, warp_window

STRETCH_PERCENTILES = (0.5, 99.5)
MAX_SAMPLE_PX = 1024
"""The stretch is measured on a decimated read of at most this many pixels a side."""
BORDER_DILATION_PX = 2
"""A black border is taken this much wider: pixels beside it are mixed by resampling and compression."""
PLACEHOLDER_CRS, PLACEHOLDER_TRANSFORM = CRS.from_epsg(3857), Affine.scale(1, -1)
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
class OverviewSample:
    """A decimated read of a whole date: raw values, where they are data, and where an untagged black border lies."""

    data_CHW: NDArray[Any]
    valid_HW: NDArray[np.bool_]
    black_HW: NDArray[np.bool_]

    @property
    def usable_HW(self) -> NDArray[np.bool_]:
        """Where there is data and no border."""
        return self.valid_HW & ~self.black_HW


@dataclass(frozen=True)
class ImageReader:
    """One image of a pair, opened.

    Attributes:
        input: what was given, and what GDAL opens.
        dataset: the opened file or mosaic, or a warped view of it; holds file handles.
        bands: the 1-based numbers of the bands that are read; red, green and blue come first.
        grid: the grid on which it is read: the file's own, or the pair's.
        file_grid: the file's own grid.
        row, col: where the grid's corner lies in `dataset`.
        warped: whether pixels are resampled.
        stretch: how data values become 8-bit; None for 8-bit data, which pass as they are.
        border: untagged black border; empty until `prepare`.
        cached_sample: what `read_sample` returns once `prepare`: it is read only once.
        displacement: small offsets from place to place by which pixels are moved when they are read; None: none.
        mosaic_views: what must be closed after the source: the views of a mosaic.
    """

    input: ResolvedInput
    dataset: Any
    bands: tuple[int, ...]
    grid: Grid
    file_grid: Grid
    row: int = 0
    col: int = 0
    warped: bool = False
    stretch: Stretch | None = None
    border: BlackBorder = dataclass_field(default_factory=lambda: BlackBorder(0, 0))
    cached_sample: OverviewSample | None = None
    displacement: DisplacementField | None = None
    mosaic_views: ExitStack | None = None

    @property
    def path(self) -> Path:
        """The file, or what stands for several or for an address: for its name in titles."""
        return Path(self.input.display_name)

    def read(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return a window of the grid as uint8 HWC with its HW mask of valid pixels.

        `shape_hw` reads it decimated (averaged) to that size.
        """
        if self.displacement is None:
            return self._read(row, col, height, width, shape_hw=shape_hw)
        grid_hw = self.grid.height, self.grid.width
        top, left, bottom, right = find_source_window(self.displacement, row, col, height, width, shape_hw=grid_hw)
        scale_hw = (1.0, 1.0) if shape_hw is None else (shape_hw[0] / height, shape_hw[1] / width)
        wide_hw = round((bottom - top) * scale_hw[0]), round((right - left) * scale_hw[1])
        image_HWC, valid_HW = self._read(
            top, left, bottom - top, right - left, shape_hw=None if shape_hw is None else wide_hw
        )
        tall, wide = shape_hw or (height, width)
        rows, cols = row + np.arange(tall) / scale_hw[0], col + np.arange(wide) / scale_hw[1]
        offsets_2HW = self.displacement.interpolate(rows, cols) * np.array(scale_hw)[:, None, None]
        start = (row - top) * scale_hw[0], (col - left) * scale_hw[1]
        return warp_window(image_HWC, valid_HW, offsets_2HW, row=start[0], col=start[1])

    def _read(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Read a window as it lies in the source."""
        resampling = Resampling.nearest if shape_hw is None else Resampling.average
        data_CHW, valid_HW = self._read_raw(row, col, height, width, shape_hw=shape_hw, resampling=resampling)
        image_CHW = data_CHW if self.stretch is None else self.stretch(data_CHW)
        if self.border.strips:
            valid_HW &= ~self.read_border(row, col, height, width, shape_hw=shape_hw)
        return np.ascontiguousarray(image_CHW.transpose(1, 2, 0)), valid_HW

    def _read_raw(
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
        return self._read_dataset(self.dataset, window, shape_hw or (height, width), resampling)

    def _read_dataset(
        self, source: Any, window: Window | None, size_hw: tuple[int, int], resampling: Resampling
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read raw values and where they are data."""
        shape = (len(self.bands), *size_hw)
        try:
            with network_timeouts(self.input):
                data_CHW = source.read(list(self.bands), window=window, out_shape=shape, resampling=resampling)
                mask_HW = source.dataset_mask(window=window, out_shape=size_hw)
        except RasterioError as error:
            remote = self.input.is_remote
            problem = f"pixels cannot be read ({describe_root_cause(error)}), it may be {'out of reach' if remote else 'truncated'}"
            raise InputError(
                self.input.display_name, problem, "Check the network" if remote else DAMAGED_REMEDY
            ) from error
        valid_HW = mask_HW > 0
        if data_CHW.dtype.kind == "f":
            valid_HW &= np.isfinite(data_CHW).all(axis=0)
        return data_CHW, valid_HW

    def read_border(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None
    ) -> NDArray[np.bool_]:
        """Return the untagged black border in a window, grown by `BORDER_DILATION_PX`."""
        if not self.border.strips:
            return np.zeros(shape_hw or (height, width), bool)
        return self.border.read_dilated(
            row, col, height, width, radius_px=BORDER_DILATION_PX, shape_hw=shape_hw or (height, width)
        )

    def on_grid(self, grid: Grid) -> ImageReader:
        """Return this date read on another grid: shifted by whole pixels where that is exact, else warped (cubic)."""
        place = find_pixel_offset(self.grid, grid)
        if place is not None:
            return replace(self, grid=grid, row=place[0], col=place[1])
        return replace(
            self, dataset=self._open_warped_view(self.dataset, grid, Resampling.cubic), grid=grid, warped=True
        )

    def _open_warped_view(self, source: Any, grid: Grid, resampling: Resampling) -> WarpedVRT:
        """Return the file as it looks on another grid."""
        plain = grid.crs is None
        flags = source.mask_flag_enums[self.bands[0] - 1]
        tagged = source.nodata is not None or MaskFlags.alpha in flags
        return WarpedVRT(
            source,
            src_crs=PLACEHOLDER_CRS if plain else None,
            src_transform=PLACEHOLDER_TRANSFORM @ self.file_grid.transform if plain else None,
            crs=PLACEHOLDER_CRS if plain else grid.crs,
            transform=PLACEHOLDER_TRANSFORM @ grid.transform if plain else grid.transform,
            width=grid.width,
            height=grid.height,
            resampling=resampling,
            add_alpha=not tagged,  # otherwise ground outside the file would read as valid black
        )

    def select_rgb(self) -> ImageReader:
        """Return the same date, with the same file handles, with red, green and blue only."""
        if len(self.bands) == 3:
            return self
        stretch, sampled = self.stretch, self.cached_sample
        return replace(
            self,
            bands=self.bands[:3],
            stretch=None if stretch is None else Stretch(stretch.low_C[:3], stretch.high_C[:3]),
            cached_sample=None if sampled is None else replace(sampled, data_CHW=sampled.data_CHW[:3]),
        )

    def transfer_to(self, fresh: ImageReader) -> ImageReader:
        """Return the same file, opened anew, on this date's grid and with all that was measured of it."""
        return replace(
            fresh.on_grid(self.grid),
            stretch=self.stretch,
            border=self.border,
            cached_sample=self.cached_sample,
            displacement=self.displacement,
        )

    def prepare(self) -> ImageReader:
        """Return this date with what has to be known of the whole overlap: its stretch and its black border.

        Raises:
            InputError: it has no pixel with data there (as far as the sample shows), or it is damaged.
        """
        ready = replace(self, cached_sample=self.read_sample())
        if np.dtype(self.dataset.dtypes[self.bands[0] - 1]) != np.uint8:
            ready = replace(ready, stretch=_measure_stretch(ready))
        ready = replace(ready, border=ready._find_border())
        if not ready.border.strips:
            return ready
        sample, grid = ready.read_sample(), ready.grid
        shape_hw = (sample.valid_HW.shape[0], sample.valid_HW.shape[1])
        black_HW = ready.read_border(0, 0, grid.height, grid.width, shape_hw=shape_hw)
        return replace(ready, cached_sample=replace(sample, black_HW=black_HW))

    def _find_border(self) -> BlackBorder:
        """Search for an untagged black border; what is tagged as no data links black regions with the edge."""
        height, width = self.grid.height, self.grid.width
        data_CHW, valid_HW = self.read_sample().data_CHW, self.read_sample().valid_HW
        black_HW = (data_CHW == 0).all(axis=0)
        if not valid_HW.any() or (black_HW | ~valid_HW).all():
            why = "it is black all over" if valid_HW.any() else "all of it is tagged as no data, transparent or NaN"
            remedy = "Look at it, check its no-data value with `gdalinfo`, and give another one"
            raise InputError(
                self.input.display_name, f"has no pixel with data where the other image lies: {why}", remedy
            )
        if not (valid_HW & black_HW).any():
            return BlackBorder(height, width)

        def is_black(row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
            data_CHW, valid_HW = self._read_raw(row, col, height, width)
            return ~valid_HW | (data_CHW == 0).all(axis=0)  # type: ignore[no-any-return]

        return find_black_border(is_black, height=height, width=width)

    def measure_border_frac(self) -> float:
        """Return the share of the grid that is black border and not tagged as no data, from a decimated read."""
        sample = self.read_sample()
        return float((sample.valid_HW & sample.black_HW).mean())

    def read_sample(self) -> OverviewSample:
        """Read the whole grid decimated to `MAX_SAMPLE_PX`, by nearest neighbour so that values stay what they are."""
        if self.cached_sample is not None:
            return self.cached_sample
        grid = self.grid
        step = max(1.0, max(grid.height, grid.width) / MAX_SAMPLE_PX)
        size = max(1, round(grid.height / step)), max(1, round(grid.width / step))
        if not self.warped or step == 1:
            return OverviewSample(*self._read_raw(0, 0, grid.height, grid.width, shape_hw=size), np.zeros(size, bool))
        with self._open_warped_view(self.dataset.src_dataset, grid.resize(*size), Resampling.nearest) as view:
            return OverviewSample(*self._read_dataset(view, None, size, Resampling.nearest), np.zeros(size, bool))

    def close(self) -> None:
        """Let go of the files."""
        if self.warped:
            source = self.dataset.src_dataset
            self.dataset.close()
            source.close()
        else:
            self.dataset.close()
        if self.mosaic_views is not None:
            self.mosaic_views.close()


def _measure_stretch(date: ImageReader) -> Stretch:
    """Measure the stretch on a decimated read of the whole overlap, so that every tile gets the same one."""
    data_CHW, valid_HW = date.read_sample().data_CHW, date.read_sample().valid_HW
    if not valid_HW.any():
        return Stretch(np.zeros(len(data_CHW)), np.ones(len(data_CHW)))
    seen_HW = valid_HW & (data_CHW != 0).any(axis=0)  # an untagged black border would drag the lower limit to 0
    values_CN = data_CHW[:, seen_HW if seen_HW.any() else valid_HW].astype(np.float64)
    low_C, high_C = np.percentile(values_CN, STRETCH_PERCENTILES, axis=1)
    return Stretch(low_C, high_C)
