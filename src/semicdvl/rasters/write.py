"""Arrays -> cloud-optimised GeoTIFF, written whole: under a temporary name first, then renamed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from semicdvl.files import unwritable, whole
from semicdvl.rasters.grid import Grid

BLOCK_PX = 512
Colour = tuple[int, int, int]


def write_cog(
    path: Path,
    array_HW: NDArray[Any],
    *,
    grid: Grid,
    nodata: float,
    tags: Mapping[str, str] | None = None,
    colours: Sequence[Colour] | None = None,
    description: str = "",
) -> None:
    """Write one band as a cloud-optimised GeoTIFF (deflate, internal tiles, overviews).

    Args:
        path: the file; an older one of that name is replaced.
        array_HW: uint8 classes (overviews by majority, no predictor, which would only widen them) or float32 values
            (overviews by mean, floating-point predictor).
        grid: where the pixels lie; without a CRS the file carries none, and its tag `NOTE` says so.
        nodata: value that means no data (NaN for floats).
        tags: further metadata of the file, such as names of classes.
        colours: RGB of the values 0, 1, ... of a uint8 band.
        description: name of the band.

    Raises:
        OutputError: the folder is read-only or missing, or the disk is full. No part of the file stays behind.
    """
    floating = array_HW.dtype.kind == "f"
    options = {
        "compress": "DEFLATE",
        "predictor": "YES" if floating else "NO",
        "overview_resampling": "AVERAGE" if floating else "MODE",
        "blocksize": BLOCK_PX,
        "num_threads": "ALL_CPUS",
        "bigtiff": "IF_SAFER",
    }
    with gdal_errors(path), whole(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        rough = part.with_name(f"{part.stem}.rough.tif")
        try:
            _write_rough(rough, array_HW, grid=grid, nodata=nodata, tags=tags, colours=colours, description=description)
            rasterio.shutil.copy(rough, part, driver="COG", **options)
            _same(rough, part)
        finally:
            rough.unlink(missing_ok=True)


def _write_rough(
    rough: Path,
    array_HW: NDArray[Any],
    *,
    grid: Grid,
    nodata: float,
    tags: Mapping[str, str] | None,
    colours: Sequence[Colour] | None,
    description: str,
) -> None:
    """Write the plain tiled GeoTIFF that GDAL's COG driver, which needs a finished file, copies from."""
    profile = {
        "driver": "GTiff",
        "dtype": array_HW.dtype,
        "count": 1,
        "height": grid.height,
        "width": grid.width,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "compress": "LZW",
        "bigtiff": "IF_SAFER",
    }
    if grid.crs is not None:
        profile |= {"crs": grid.crs, "transform": grid.transform}
    note = {} if grid.crs is not None else {"NOTE": "no CRS: the images had none; row and column are theirs"}
    with rasterio.open(rough, "w", **profile) as target:
        target.update_tags(**{**note, **(tags or {})})
        if description:
            target.set_band_description(1, description)
        if colours is not None:
            target.write_colormap(1, {value: (*colour, 255) for value, colour in enumerate(colours)})
        for row in range(0, grid.height, BLOCK_PX):
            rows_HW = array_HW[row : row + BLOCK_PX]
            target.write(rows_HW, 1, window=((row, row + len(rows_HW)), (0, grid.width)))


def _same(rough: Path, finished: Path) -> None:
    """Make sure that what lies on the disk is what was meant: GDAL tells of a full disk late or not at all."""
    with rasterio.open(rough) as first, rasterio.open(finished) as second:
        if first.checksum(1) != second.checksum(1):
            raise OSError("what was written does not read back as it was")


@contextmanager
def gdal_errors(path: Path) -> Iterator[None]:
    """Turn the errors of GDAL and of the system while `path` is written into an `OutputError`."""
    try:
        yield
    except (RasterioError, CPLE_BaseError, DataSourceError, DataLayerError) as error:
        lines = str(error.__cause__ or error).strip().splitlines()
        reason = lines[0].rstrip(".") if lines else type(error).__name__
        raise unwritable(path, OSError(reason)) from error
    except OSError as error:
        raise unwritable(path, error) from error
