"""Opening one file, and refusing what cannot be read: missing, broken, empty, rotated or not placed on the ground."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import rasterio
from PIL.PngImagePlugin import PngImageFile
from rasterio.errors import RasterioError

from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.inputs import is_local_name, is_remote_name

DAMAGED_REMEDY = "Copy or download it again; `gdalinfo -checksum FILE` shows whether it is whole"
JPEG_TAIL_BYTES = 65_536
"""A whole JPEG ends with its end marker; cameras may append some bytes of their own."""


def open_dataset(gdal_name: str, *, display_name: str) -> Any:
    """Open one file; `display_name` is its name in messages.

    Raises:
        InputError: it is missing, out of reach, no image, damaged, a header without pixels, or its grid is rotated or
            given by ground control points or rational polynomials only.
    """
    local = is_local_name(gdal_name)
    if local and not Path(gdal_name).exists():
        raise InputError(display_name, "no such file", "Check the spelling and the folder")
    if local and Path(gdal_name).is_dir():
        raise InputError(display_name, "is a folder, wanted an image file", "Give a GeoTIFF, PNG or JPEG in it")
    try:
        with ignore_not_georeferenced():
            source = rasterio.open(gdal_name)
            source.transform  # noqa: B018  (reading it warns, once)
    except RasterioError as error:
        raise _open_error(gdal_name, display_name, error) from error
    try:
        if local:
            _check_png(Path(gdal_name), source.driver, display_name)
            _check_jpeg(Path(gdal_name), source.driver, display_name)
        _check_tiff(gdal_name, source, display_name)
        _check_georeferencing(source, display_name)
    except BaseException:
        source.close()
        raise
    return source


def read_grid(dataset: Any) -> Grid:
    """Return the grid of an opened file."""
    return Grid(dataset.crs, dataset.transform, dataset.height, dataset.width)


def describe_root_cause(error: BaseException) -> str:
    """Return the first cause's first line: rasterio hides GDAL's own words behind "see previous exception"."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _open_error(part: str, shown: str, error: RasterioError) -> InputError:
    why = describe_root_cause(error).replace(part, shown)
    if is_remote_name(part):
        remedy = (
            "Check the address and the network; private buckets need their keys in the environment (AWS_ACCESS_KEY_ID, "
            "AWS_SECRET_ACCESS_KEY, ...), open ones AWS_NO_SIGN_REQUEST=YES"
        )
        return InputError(shown, f"cannot be reached or is no image ({why})", remedy)
    remedy = "Give a GeoTIFF, PNG, JPEG or another raster that GDAL reads"
    return InputError(shown, f"not an image that can be opened ({why})", remedy)


def _check_png(path: Path, driver: str, shown: str) -> None:
    """GDAL reads a truncated PNG as if its rest were black; Pillow checks the chunks without decoding."""
    if driver != "PNG":
        return
    try:
        with path.open("rb") as handle:
            PngImageFile(handle).verify()  # not `Image.open`, which takes a large scene for an attack
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(shown, f"damaged PNG ({error})", DAMAGED_REMEDY) from error


def _check_jpeg(path: Path, driver: str, shown: str) -> None:
    """GDAL reads a truncated JPEG as if its rest were grey."""
    if driver != "JPEG":
        return
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - JPEG_TAIL_BYTES))
        if b"\xff\xd9" not in handle.read():
            raise InputError(shown, "damaged JPEG (its end is missing)", DAMAGED_REMEDY)


def _check_tiff(part: str, source: Any, shown: str) -> None:
    """GDAL reads blocks that were never written as zeros; a large header with nothing behind it would keep it busy."""
    if source.driver != "GTiff":
        return
    size = Path(part).stat().st_size if is_local_name(part) and Path(part).is_file() else None
    tall, wide = source.block_shapes[0]
    blocks = (_spread_indices(-(-length // step)) for length, step in ((source.width, wide), (source.height, tall)))
    with rasterio.Env():  # where GDAL's own words go to the log, not to the console
        for block in itertools.product(*blocks):
            offset = source.get_tag_item("BLOCK_OFFSET_{}_{}".format(*block), "TIFF", bidx=1)
            if offset is not None and (size is None or int(offset) < size):
                return
    name = f"{source.width:,} x {source.height:,} px"
    raise InputError(shown, f"is a header for {name} without pixels behind it, it may be truncated", DAMAGED_REMEDY)


def _spread_indices(count: int) -> list[int]:
    """Return at most 12 numbers below `count`, spread evenly."""
    return sorted({round(at * (count - 1) / 11) for at in range(12)})


def _check_georeferencing(source: Any, shown: str) -> None:
    """Refuse what is not a north-up grid."""
    transform = source.transform
    if source.crs is None and source.gcps[0]:
        raise InputError(shown, "placed by ground control points only", "Run `gdalwarp` on it first")
    if source.crs is None and source.rpcs is not None and transform.is_identity:
        raise InputError(shown, "placed by rational polynomials (RPC) only", "Run `gdalwarp -rpc` on it first")
    if source.crs is not None and (transform.b or transform.d):
        raise InputError(shown, "its grid is rotated", "Run `gdalwarp` on it first, which turns it north up")
