"""Rows of arrays -> cloud-optimised GeoTIFF, written whole: under a temporary name first, then renamed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from semicdvl.atomic_files import make_output_error, write_atomically
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced

COG_BLOCK_PX = 512
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class BandDescription:
    """What a raster of one band says of itself.

    Attributes:
        dtype: "uint8" for classes (overviews by majority, no predictor, which would only widen them) or "float32" for
            values (overviews by mean, floating-point predictor).
        nodata: value that means no data (NaN for floats).
        tags: further metadata of the file, such as names of classes.
        colours: RGB of the values 0, 1, ... of a uint8 band.
        description: name of the band.
    """

    dtype: str
    nodata: float
    tags: Mapping[str, str] = field(default_factory=dict)
    colours: Sequence[Colour] | None = None
    description: str = ""


class CogWriter:
    """A cloud-optimised GeoTIFF in the making, written rows by rows; see `create_cog`."""

    def __init__(self, path: Path, target: Any) -> None:
        """Keep where it goes to and the opened plain file."""
        self._path, self._target = path, target

    def write_rows(self, row: int, rows_HW: NDArray[Any]) -> None:
        """Write rows over the whole width.

        Raises:
            OutputError: the disk is full.
        """
        with translate_gdal_errors(self._path):
            self._target.write(rows_HW, 1, window=Window(0, row, rows_HW.shape[1], rows_HW.shape[0]))

    def clear_pixels(self, row: int, col: int, mask_HW: NDArray[np.bool_]) -> None:
        """Set the pixels of a mask that lies at (row, col) to 0; they must have been written.

        Raises:
            OutputError: the disk is full.
        """
        window = Window(col, row, mask_HW.shape[1], mask_HW.shape[0])
        with translate_gdal_errors(self._path):
            values_HW = self._target.read(1, window=window)
            values_HW[mask_HW] = 0
            self._target.write(values_HW, 1, window=window)


@contextmanager
def create_cog(path: Path, *, grid: Grid, band: BandDescription) -> Iterator[CogWriter]:
    """Open a cloud-optimised GeoTIFF (deflate, internal tiles, overviews) for writing rows by rows.

    The rows go to a plain file beside it, from which GDAL makes the final one when the block ends well. Memory does not
    grow with the raster.

    Args:
        path: the file; an older one of that name is replaced.
        grid: where the pixels lie; without a CRS the file carries none, and its tag `NOTE` says so.
        band: what the pixels mean.

    Raises:
        OutputError: the folder is read-only or missing, or the disk is full. No part of the file stays behind.
    """
    floating = np.dtype(band.dtype).kind == "f"
    options = {
        "compress": "DEFLATE",
        "predictor": "YES" if floating else "NO",
        "overview_resampling": "AVERAGE" if floating else "MODE",
        "blocksize": COG_BLOCK_PX,
        "num_threads": "ALL_CPUS",
        "bigtiff": "IF_SAFER",
    }
    with write_atomically(path) as part:
        rough = part.with_name(f"{part.stem}.rough.tif")
        try:
            with _create_plain_geotiff(rough, path, grid=grid, band=band) as target:
                yield CogWriter(path, target)
            with translate_gdal_errors(path), ignore_not_georeferenced():
                _check_file_size(rough, grid, band)
                rasterio.shutil.copy(rough, part, driver="COG", **options)
                _check_identical_pixels(rough, part)
        finally:
            rough.unlink(missing_ok=True)


@contextmanager
def _create_plain_geotiff(rough: Path, path: Path, *, grid: Grid, band: BandDescription) -> Iterator[Any]:
    """Open the plain tiled GeoTIFF that GDAL's COG driver, which needs a finished file, copies from."""
    profile = {
        "driver": "GTiff",
        "dtype": band.dtype,
        "count": 1,
        "height": grid.height,
        "width": grid.width,
        "nodata": band.nodata,
        "tiled": True,
        "blockxsize": COG_BLOCK_PX,
        "blockysize": COG_BLOCK_PX,
        "bigtiff": "IF_SAFER",
    }
    if grid.crs is not None:
        profile |= {"crs": grid.crs, "transform": grid.transform}
    note = {} if grid.crs is not None else {"NOTE": "no CRS: the images had none; row and column are theirs"}
    with translate_gdal_errors(path), ignore_not_georeferenced():
        target = rasterio.open(rough, "w+", **profile)
    try:
        with translate_gdal_errors(path):
            target.update_tags(**{**note, **band.tags})
            if band.description:
                target.set_band_description(1, band.description)
            if band.colours is not None:
                target.write_colormap(1, {value: (*colour, 255) for value, colour in enumerate(band.colours)})
        yield target
    finally:
        with translate_gdal_errors(path):
            target.close()


def _check_file_size(rough: Path, grid: Grid, band: BandDescription) -> None:
    """Make sure that every block was written: GDAL tells of a full disk late or not at all."""
    blocks = -(-grid.height // COG_BLOCK_PX) * -(-grid.width // COG_BLOCK_PX)
    if rough.stat().st_size < blocks * COG_BLOCK_PX**2 * np.dtype(band.dtype).itemsize:
        raise OSError("No space left on device")


def _check_identical_pixels(rough: Path, finished: Path) -> None:
    """Make sure that what lies on the disk is what was meant, for the same reason; both files are read at once."""
    with ThreadPoolExecutor(2) as both:
        first, second = both.map(_pixel_checksum, (rough, finished))
    if first != second:
        raise OSError("what was written does not read back as it was")


def _pixel_checksum(path: Path) -> int:
    """Return the check sum of a raster's pixels, block by block; GDAL's own would keep the other thread waiting."""
    found = 0
    with rasterio.open(path) as source:
        for row in range(0, source.height, COG_BLOCK_PX):
            for col in range(0, source.width, COG_BLOCK_PX):
                window = Window(col, row, min(COG_BLOCK_PX, source.width - col), min(COG_BLOCK_PX, source.height - row))
                found = zlib.crc32(source.read(1, window=window).tobytes(), found)
    return found


@contextmanager
def translate_gdal_errors(path: Path) -> Iterator[None]:
    """Turn the errors of GDAL and of the system while `path` is written into an `OutputError`."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, DataSourceError, DataLayerError) as error:
        lines = str(error.__cause__ or error).strip().splitlines()
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        raise make_output_error(path, OSError(reason)) from error
    except OSError as error:
        raise make_output_error(path, error) from error
