"""Write cloud-optimised GeoTIFFs rows by rows: under a temporary name first, renamed once complete."""

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

from semicdvl.atomic_files import write_atomically
from semicdvl.outputs.messages import make_output_error
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced

COG_BLOCK_PX = 512
"""Side of the internal tiles."""


@dataclass(frozen=True)
class BandDescription:
    """The metadata of a raster with one band.

    Attributes:
        dtype: "uint8" for classes (overviews by majority, no predictor, which would only enlarge them) or "float32" for
            values (overviews by mean, floating-point predictor).
        nodata: the no-data value (NaN for floats).
        tags: further metadata of the file, such as the names of classes.
        colours: RGB of the values 0, 1, ... of a uint8 band.
        description: name of the band.
    """

    dtype: str
    nodata: float
    tags: Mapping[str, str] = field(default_factory=dict)
    colours: Sequence[tuple[int, int, int]] | None = None
    description: str = ""


@dataclass(frozen=True)
class CogWriter:
    """Writes the pixels of a cloud-optimised GeoTIFF; see `create_cog`.

    Attributes:
        path: the final file, for messages.
        target: the temporary plain GeoTIFF, open for reading and writing.
    """

    path: Path
    target: Any

    def write_rows(self, row: int, rows_HW: NDArray[Any]) -> None:
        """Write rows over the whole width.

        Raises:
            OutputError: the disk is full.
        """
        with translate_gdal_errors(self.path):
            self.target.write(rows_HW, 1, window=Window(0, row, rows_HW.shape[1], rows_HW.shape[0]))

    def clear_pixels(self, row: int, col: int, mask_HW: NDArray[np.bool_]) -> None:
        """Set the pixels of a mask at (row, col) to 0; they must have been written before.

        Raises:
            OutputError: the disk is full.
        """
        window = Window(col, row, mask_HW.shape[1], mask_HW.shape[0])
        with translate_gdal_errors(self.path):
            values_HW = self.target.read(1, window=window)
            values_HW[mask_HW] = 0
            self.target.write(values_HW, 1, window=window)


@contextmanager
def create_cog(path: Path, *, grid: Grid, band: BandDescription) -> Iterator[CogWriter]:
    """Create a cloud-optimised GeoTIFF (deflate, internal tiles, overviews) that is written rows by rows.

    The rows go to a temporary plain GeoTIFF beside it, from which GDAL makes the final file when the block ends without
    an error. Memory does not grow with the raster.

    Args:
        path: the file; an existing file of that name is replaced.
        grid: position of the pixels; without a CRS the file has none, and its tag `NOTE` says so. A geotransform
            without a CRS is kept.
        band: metadata of the band.

    Raises:
        OutputError: the folder is read-only or missing, or the disk is full. No part of the file is left behind.
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
        plain = part.with_name(f"{part.stem}.rough.tif")
        try:
            with _create_plain_geotiff(plain, path, grid=grid, band=band) as target:
                yield CogWriter(path, target)
            with translate_gdal_errors(path), ignore_not_georeferenced():
                _check_file_size(plain, grid, band)
                rasterio.shutil.copy(plain, part, driver="COG", **options)
                _check_identical_pixels(plain, part)
        finally:
            plain.unlink(missing_ok=True)


@contextmanager
def _create_plain_geotiff(plain: Path, path: Path, *, grid: Grid, band: BandDescription) -> Iterator[Any]:
    """Create the plain tiled GeoTIFF that GDAL's COG driver, which needs a complete file, copies from."""
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
        profile |= {"crs": grid.crs}
    if grid.crs is not None or not grid.transform.is_identity:
        profile |= {"transform": grid.transform}
    note = {} if grid.crs is not None else {"NOTE": "no CRS: the images had none; row and column are theirs"}
    with translate_gdal_errors(path), ignore_not_georeferenced():
        target = rasterio.open(plain, "w+", **profile)
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


def _check_file_size(plain: Path, grid: Grid, band: BandDescription) -> None:
    """Make sure that every block was written: GDAL reports a full disk late or not at all."""
    blocks = -(-grid.height // COG_BLOCK_PX) * -(-grid.width // COG_BLOCK_PX)
    if plain.stat().st_size < blocks * COG_BLOCK_PX**2 * np.dtype(band.dtype).itemsize:
        raise OSError("No space left on device")


def _check_identical_pixels(plain: Path, finished: Path) -> None:
    """Make sure that the final file holds the pixels of the plain one, for the same reason; both are read at once."""
    with ThreadPoolExecutor(2) as executor:
        first, second = executor.map(_compute_checksum, (plain, finished))
    if first != second:
        raise OSError("the pixels on the disk differ from those that were written")


def _compute_checksum(path: Path) -> int:
    """Return the CRC-32 of a raster's pixels, block by block; GDAL's own checksum would block the other thread."""
    checksum = 0
    with rasterio.open(path) as dataset:
        for row in range(0, dataset.height, COG_BLOCK_PX):
            for col in range(0, dataset.width, COG_BLOCK_PX):
                width, height = min(COG_BLOCK_PX, dataset.width - col), min(COG_BLOCK_PX, dataset.height - row)
                block_HW = dataset.read(1, window=Window(col, row, width, height))
                checksum = zlib.crc32(block_HW.tobytes(), checksum)
    return checksum


@contextmanager
def translate_gdal_errors(path: Path) -> Iterator[None]:
    """Raise an `OutputError` in place of the errors of GDAL and of the system while `path` is written."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, DataSourceError, DataLayerError) as error:
        raise make_output_error(path, error.__cause__ or error) from error
    except OSError as error:
        raise make_output_error(path, error) from error
