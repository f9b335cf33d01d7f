"""Read one image of a pair as 8-bit bands with a mask of valid pixels, on the grid of the pair."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid, find_pixel_offset, move_to_longitudes_of
from semicdvl.raster.io.collar import LOSSY_COMPRESSIONS, LOSSY_DILATION_PX, MIN_COLLAR_PX, Collar, find_collars
from semicdvl.raster.io.inputs import ResolvedInput, network_access
from semicdvl.raster.io.nodata_border import BlackBorder, find_black_border
from semicdvl.raster.io.open_dataset import DAMAGED_REMEDY, describe_root_cause
from semicdvl.raster.io.pair_stretch import measure_stretch
from semicdvl.raster.io.views.warped_view import open_warped_view
from semicdvl.raster.stored_values import BandScaling, OverviewSample, Stretch
from semicdvl.raster.warp import DisplacementField, read_displaced

MAX_SAMPLE_PX = 1024
"""The overview sample has at most this many pixels on a side."""
BORDER_DILATION_PX = 2
"""A black border is dilated by so many pixels of the file: resampling mixes those beside it with it."""
LOSSY_DRIVERS = ("JPEG", "WEBP", "JP2OpenJPEG", "JPEGXL", "ECW", "MrSID")


@dataclass(frozen=True)
class ImageReader:
    """An open image of a pair. It may be read by one thread at a time (GDAL's handles are not thread-safe).

    Attributes:
        input: what was given, and what GDAL opens.
        dataset: the open file or mosaic, or a warped view of it.
        bands: 1-based numbers of the bands that are read; red, green and blue come first.
        grid: the grid on which it is read: the file's own, or the pair's.
        file_grid: the file's own grid.
        files: the local files that belong to it, masks and parts of a mosaic included.
        row, col: position of the grid's top left corner in `dataset`.
        warped: whether the pixels are resampled.
        stretch: how data values become 8-bit grey values; None for 8-bit data, which are read unchanged.
        border: black border that no tag declares as no-data; empty until `prepare`.
        cached_sample: the overview sample, once read by `prepare`.
        displacement: by how much pixels are moved when they are read; None: not at all.
        collar: which collars without a no-data tag are looked for: one of `collar.COLLAR_CHOICES`.
        collars: those that `prepare` found.
        views: closes what the dataset is a view of: files that are turned or retagged, and those of a mosaic.
        notes: what a reader of the result should know about how the file was understood.
        scaling: what the tags of the file say of its stored values; None: nothing.
        never_measured: values that hide a pixel in whichever band they are (`views.sentinel_values`).
        stretch_note: what a reader of the result should know about the stretch.
        exact: what makes the values that are read of the stored ones, as float32 and without rounding; None: grey
            values of 8 bits are read.
        colours_told: whether the file or the user says which bands are red, green and blue.
    """

    input: ResolvedInput
    dataset: Any
    bands: tuple[int, ...]
    grid: Grid
    file_grid: Grid
    files: tuple[Path, ...] = ()
    row: int = 0
    col: int = 0
    warped: bool = False
    stretch: Stretch | None = None
    border: BlackBorder = dataclass_field(default_factory=lambda: BlackBorder(0, 0))
    cached_sample: OverviewSample | None = None
    displacement: DisplacementField | None = None
    views: ExitStack | None = None
    notes: tuple[str, ...] = ()
    collar: str = "auto"
    collars: tuple[Collar, ...] = ()
    scaling: BandScaling | None = None
    never_measured: tuple[float, ...] = ()
    stretch_note: str = ""
    exact: BandScaling | None = None
    colours_told: bool = True

    @property
    def path(self) -> Path:
        """The path of the file; for a mosaic or an address, a path made of its display name, for titles."""
        return Path(self.input.display_name)

    @property
    def file_dataset(self) -> Any:
        """The open file or mosaic as it is, not resampled."""
        return self.dataset.src_dataset if self.warped else self.dataset

    # -------------------------------------------------------------------------------------------- placing
    def on_grid(self, grid: Grid) -> ImageReader:
        """Return a reader of the same open file on another grid.

        It is offset by whole pixels where that is exact, and resampled (cubic) otherwise.
        """
        offset = find_pixel_offset(self.grid, grid)
        if offset is not None:
            return replace(self, grid=grid, row=offset[0], col=offset[1])
        view = open_warped_view(self.dataset, self.file_grid, grid, resampling=Resampling.cubic)
        return replace(self, dataset=view, grid=grid, warped=True)

    def move_to_longitudes_of(self, grid: Grid) -> ImageReader:
        """Return a reader of the same open file whose longitudes are turned by full circles to those of a grid."""
        moved = move_to_longitudes_of(self.file_grid, grid)
        return self if moved == self.file_grid else replace(self, grid=moved, file_grid=moved)

    def on_file_grid(self) -> ImageReader:
        """Return a reader of the same open file on the file's own grid, without anything measured on another grid."""
        return ImageReader(
            input=self.input,
            dataset=self.file_dataset,
            bands=self.bands,
            grid=self.file_grid,
            file_grid=self.file_grid,
            files=self.files,
            views=self.views,
            notes=self.notes,
            collar=self.collar,
            scaling=self.scaling,
            never_measured=self.never_measured,
            colours_told=self.colours_told,
        )

    def select_rgb(self) -> ImageReader:
        """Return a reader of the same open file for red, green and blue only."""
        if len(self.bands) == 3:
            return replace(self, exact=None)
        stretch, sample = self.stretch, self.cached_sample
        return replace(
            self,
            bands=self.bands[:3],
            stretch=None if stretch is None else Stretch(stretch.low_C[:3], stretch.high_C[:3]),
            scaling=None if self.scaling is None else self.scaling.select(3),
            cached_sample=None if sample is None else replace(sample, data_CHW=sample.data_CHW[:3]),
            exact=None,
        )

    # -------------------------------------------------------------------------------------------- reading
    def read(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None = None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window of the grid as uint8 HWC (float32 where it is read exactly), and its HW mask of valid pixels.

        `shape_hw` reads it decimated to that size (averaged).

        Raises:
            InputError: the pixels cannot be read.
        """
        if self.displacement is None:
            return self._read_window(row, col, height, width, shape_hw=shape_hw)
        return read_displaced(
            self._read_window,
            self.displacement,
            (row, col, height, width),
            shape_hw=shape_hw,
            raster_hw=(self.grid.height, self.grid.width),
        )

    def _read_window(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read a window without displacement."""
        resampling = Resampling.nearest if shape_hw is None else Resampling.average
        data_CHW, valid_HW = self._read_raw(row, col, height, width, shape_hw=shape_hw, resampling=resampling)
        if self.border.strips:
            valid_HW &= ~self.read_border(row, col, height, width, shape_hw=shape_hw)
        if self.exact is not None:
            return np.ascontiguousarray(self.exact.apply(data_CHW).transpose(1, 2, 0)), valid_HW
        image_CHW = data_CHW if self.stretch is None else self.stretch(data_CHW)
        return np.asarray(cv2.merge(tuple(image_CHW)), np.uint8), valid_HW  # a fifth of the time of NumPy's copy

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
        """Read the data values of a window, and where the file has data."""
        window = Window(col + self.col, row + self.row, width, height)
        return self._read_dataset(self.dataset, window, shape_hw or (height, width), resampling)

    def _read_dataset(
        self, dataset: Any, window: Window | None, size_hw: tuple[int, int], resampling: Resampling
    ) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Read data values and the validity mask of a dataset."""
        shape = (len(self.bands), *size_hw)
        try:
            with network_access(self.input):
                data_CHW = dataset.read(list(self.bands), window=window, out_shape=shape, resampling=resampling)
                valid_HW = read_valid_mask(dataset, window, size_hw)
        except RasterioError as error:
            raise self._read_error(error) from error
        if data_CHW.dtype.kind == "f":
            valid_HW &= np.isfinite(data_CHW).all(axis=0)
        for value in self.never_measured:
            valid_HW &= (data_CHW != value).all(axis=0)
        return data_CHW, valid_HW

    def _read_error(self, error: RasterioError) -> InputError:
        remote = self.input.is_remote
        guess = "the address may be unreachable" if remote else "the file may be truncated"
        problem = f"The pixels cannot be read ({describe_root_cause(error)}); {guess}"
        return InputError(self.input.display_name, problem, "Check the network" if remote else DAMAGED_REMEDY)

    def read_border(
        self, row: int, col: int, height: int, width: int, *, shape_hw: tuple[int, int] | None
    ) -> NDArray[np.bool_]:
        """Return the border in a window, dilated by what was mixed with it, and decimated to `shape_hw`."""
        if not self.border.strips:
            return np.zeros(shape_hw or (height, width), bool)
        radius_px = LOSSY_DILATION_PX if self._is_lossy else BORDER_DILATION_PX
        radius_px = math.ceil(radius_px * self._pixels_per_file_pixel)
        return self.border.read_dilated(
            row, col, height, width, radius_px=radius_px, shape_hw=shape_hw or (height, width)
        )

    @property
    def _pixels_per_file_pixel(self) -> float:
        """How many pixels of the grid a pixel of the file covers along an axis; 1 where they are coarser."""
        stored_m, read_m = self.file_grid.pixel_m, self.grid.pixel_m
        if not self.warped or stored_m is None or read_m is None:
            return 1.0
        return max(1.0, stored_m[0] / read_m[0], stored_m[1] / read_m[1])

    @property
    def _is_lossy(self) -> bool:
        """Whether compression mixed ground and border: the file says so, or the collar is not of one value."""
        dataset = self.file_dataset
        compression = str(dataset.profile.get("compress", "")).upper() if self.collars else ""
        return bool(self.collars) and (
            dataset.driver in LOSSY_DRIVERS or compression in LOSSY_COMPRESSIONS or any(c.noisy for c in self.collars)
        )

    # -------------------------------------------------------------------------------------------- the whole image
    def prepare(self) -> ImageReader:
        """Return this reader with what must be known of the whole grid: its stretch and its black border.

        Raises:
            InputError: no pixel of the overview sample has data, or the pixels cannot be read.
        """
        ready = replace(self, cached_sample=self.read_sample())
        if self.data_dtype != np.uint8:
            ready = replace(ready, stretch=measure_stretch(ready.read_sample()))
        ready = ready._find_border()
        if not ready.border.strips:
            return ready
        sample, grid = ready.read_sample(), ready.grid
        shape_hw = (sample.valid_HW.shape[0], sample.valid_HW.shape[1])
        black_HW = ready.read_border(0, 0, grid.height, grid.width, shape_hw=shape_hw)
        return replace(ready, cached_sample=replace(sample, black_HW=black_HW))

    @property
    def data_dtype(self) -> np.dtype[Any]:
        """The data type of the stored values."""
        stored: np.dtype[Any] = np.dtype(self.dataset.dtypes[self.bands[0] - 1])
        return stored

    @property
    def exact_dtype(self) -> str:
        """The type that holds the exact values: the stored one where it holds whole numbers of up to 16 bits."""
        stored = self.data_dtype.name
        return stored if stored in ("uint8", "uint16") and self.get_scaling().is_identity else "float32"

    def get_scaling(self) -> BandScaling:
        """Return what makes physical values of the stored ones."""
        bands = len(self.bands)
        return BandScaling(np.ones(bands), np.zeros(bands)) if self.scaling is None else self.scaling

    @property
    def stretch_limits(self) -> str:
        """The physical values of every band that become black and white: see `Stretch.format_limits`."""
        assert self.stretch is not None, "the image is read as stored"
        return self.get_scaling().to_physical(self.stretch).format_limits()

    def _find_border(self) -> ImageReader:
        """Return this reader with its border; ground that is tagged as no-data connects regions with the edge."""
        height, width = self.grid.height, self.grid.width
        sample = self.read_sample()
        black_HW = (sample.data_CHW == 0).all(axis=0)
        if (black_HW | ~sample.valid_HW).all():
            all_black = sample.valid_HW.any()
            cause = "all of it is black" if all_black else "all of it is tagged as no-data, transparent or NaN"
            problem = f"The image has no data where the other image lies: {cause}"
            remedy = "Look at the image and check its no-data value with `gdalinfo`, or give another image"
            raise InputError(self.input.display_name, problem, remedy)
        mixed_px = math.ceil(BORDER_DILATION_PX * self._pixels_per_file_pixel) if self.warped else 0
        collars = find_collars(
            sample.data_CHW, sample.valid_HW, shape_hw=(height, width), choice=self.collar, mixed_px=mixed_px
        )
        border = BlackBorder(height, width)
        if self.collar in ("auto", "black") and (sample.valid_HW & black_HW).any():
            border = find_black_border(self._read_black, height=height, width=width)

        def read_collars(row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
            data_CHW, valid_HW = self._read_raw(row, col, height, width)
            found = [collar.select_pixels(data_CHW, row=row, col=col) for collar in collars]
            return np.asarray(np.logical_or.reduce([~valid_HW, *found]))

        if collars:
            collar = find_black_border(read_collars, height=height, width=width, min_area_px=MIN_COLLAR_PX)
            border = border.join(collar)
        return replace(self, border=border, collars=collars)

    def _read_black(self, row: int, col: int, height: int, width: int) -> NDArray[np.bool_]:
        """Return where the pixels of a window are 0 in every band, or no data."""
        data_CHW, valid_HW = self._read_raw(row, col, height, width)
        return ~valid_HW | (data_CHW == 0).all(axis=0)  # type: ignore[no-any-return]

    @property
    def border_name(self) -> str:
        """The colours of the border: "black", "white", "black and white", ..."""
        names = dict.fromkeys(["black"] if not self.collars else [collar.name for collar in self.collars])
        return " and ".join(names)

    def measure_border_frac(self) -> float:
        """Return the share of the grid that is black border and not tagged as no-data, from the overview sample."""
        sample = self.read_sample()
        return float((sample.valid_HW & sample.black_HW).mean())

    def read_sample(self) -> OverviewSample:
        """Read the whole grid decimated to `MAX_SAMPLE_PX`, by nearest neighbour so that the values are unchanged."""
        if self.cached_sample is not None:
            return self.cached_sample
        grid = self.grid
        step = max(1.0, max(grid.height, grid.width) / MAX_SAMPLE_PX)
        size = max(1, round(grid.height / step)), max(1, round(grid.width / step))
        if not self.warped or step == 1:
            return OverviewSample(*self._read_raw(0, 0, grid.height, grid.width, shape_hw=size), np.zeros(size, bool))
        small = grid.resize(*size)
        with open_warped_view(self.file_dataset, self.file_grid, small, resampling=Resampling.nearest) as view:
            return OverviewSample(*self._read_dataset(view, None, size, Resampling.nearest), np.zeros(size, bool))

    def close(self) -> None:
        """Close the file, and the views of it."""
        file_dataset = self.file_dataset
        self.dataset.close()
        if self.warped:
            file_dataset.close()
        if self.views is not None:
            self.views.close()

    def close_view(self) -> None:
        """Close the warped view only; the file stays open for other readers of it."""
        if self.warped:
            self.dataset.close()


def read_valid_mask(dataset: Any, window: Window | None, size_hw: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where a window of a dataset has data.

    A dataset whose bands are declared valid everywhere is not asked: GDAL would go through all blocks of the window,
    which takes ten times as long as the pixels of an overview. An alpha band is read as such: GDAL itself knows it as
    the mask of one or three other bands only, not of the five of a warped view of four.
    """
    if all(MaskFlags.all_valid in flags for flags in dataset.mask_flag_enums):
        roles = dataset.colorinterp
        if ColorInterp.alpha not in roles:
            return np.ones(size_hw, np.bool_)
        return np.asarray(dataset.read(roles.index(ColorInterp.alpha) + 1, window=window, out_shape=size_hw) > 0)
    return np.asarray(dataset.dataset_mask(window=window, out_shape=size_hw) > 0)
