"""Write cloud-optimised GeoTIFFs rows by rows: under a temporary name first, renamed once complete.

Classes are compressed with deflate, which every reader of GeoTIFFs knows. Scores are compressed with Zstandard, which
GDAL 2.3 and QGIS 3.4 can read: at level 1 it takes half the time of deflate or less (`benchmarks/cog.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError
from rasterio.windows import Window

from semicdvl.atomic_files import write_atomically
from semicdvl.outputs.messages import make_output_error
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced

COG_BLOCK_PX = 512
"""Side of the internal tiles."""
CLASS_OPTIONS = {"compress": "DEFLATE", "predictor": "NO", "overview_resampling": "MODE"}
VALUE_OPTIONS = {"compress": "ZSTD", "level": 1, "predictor": "YES", "overview_resampling": "AVERAGE"}
"""Creation options of the bands that hold classes and of those that hold values; see GDAL's COG driver."""
COMPARED_COLUMNS = 4096
"""Columns of a row of internal tiles that are compared at a time."""


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
    """Create a cloud-optimised GeoTIFF (compressed, internal tiles, overviews) that is written rows by rows.

    The rows go to a temporary plain GeoTIFF beside it, from which GDAL makes the final file when the block ends without
    an error; that end may run in another thread. Memory does not grow with the raster.

    Args:
        path: the file; an existing file of that name is replaced.
        grid: position of the pixels; without a CRS the file has none, and its tag `NOTE` says so. A geotransform
            without a CRS is kept.
        band: metadata of the band.

    Raises:
        OutputError: the folder is read-only or missing, or the disk is full. No part of the file is left behind.
    """
    kind = VALUE_OPTIONS if np.dtype(band.dtype).kind == "f" else CLASS_OPTIONS
    options = {**kind, "blocksize": COG_BLOCK_PX, "num_threads": "ALL_CPUS", "bigtiff": "IF_SAFER"}
    with write_atomically(path) as part:
        plain = part.with_name(f"{part.stem}.rough.tif")
        try:
            with _create_plain_geotiff(plain, path, grid=grid, band=band) as target:
                yield CogWriter(path, target)
            with translate_gdal_errors(path):
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
    """Make sure that the final file holds the pixels of the plain one, for the same reason."""
    with ExitStack() as opened:
        with ignore_not_georeferenced():
            first, second = (opened.enter_context(rasterio.open(path)) for path in (plain, finished))
        bits = f"u{np.dtype(first.dtypes[0]).itemsize}"  # NaN is equal to NaN
        corners = itertools.product(range(0, first.height, COG_BLOCK_PX), range(0, first.width, COMPARED_COLUMNS))
        for row, col in corners:  # windows of whole internal tiles
            width, height = min(COMPARED_COLUMNS, first.width - col), min(COG_BLOCK_PX, first.height - row)
            window = Window(col, row, width, height)
            values_HW, stored_HW = (dataset.read(1, window=window).view(bits) for dataset in (first, second))
            if not np.array_equal(values_HW, stored_HW):
                raise OSError("the pixels on the disk differ from those that were written")


@contextmanager
def translate_gdal_errors(path: Path) -> Iterator[None]:
    """Raise an `OutputError` in place of the errors of GDAL and of the system while `path` is written."""
    try:
        yield
    except _list_gdal_errors() as error:
        raise make_output_error(path, error.__cause__ or error) from error
    except OSError as error:
        raise make_output_error(path, error) from error


def _list_gdal_errors() -> tuple[type[Exception], ...]:
    """Return the errors of GDAL's two bindings; that for vectors is imported only where something was raised."""
    from pyogrio.errors import DataLayerError, DataSourceError

    return RasterioError, CPLE_BaseError, DataSourceError, DataLayerError
