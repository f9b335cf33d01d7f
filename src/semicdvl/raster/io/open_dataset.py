"""Open one raster file, and reject files that cannot be used: missing, damaged, empty, half georeferenced.

Plain images have no georeference on purpose: `ignore_not_georeferenced` opens them without rasterio's warning.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyproj
import rasterio
from PIL.PngImagePlugin import PngImageFile
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from semicdvl.errors import InputError
from semicdvl.raster.file_access import describe_unused_overviews, list_vrt_sources, open_raster
from semicdvl.raster.grid import Grid, drop_height, is_of_earth, measure_offset_m
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced
from semicdvl.raster.io.inputs import is_local_name, is_remote_name
from semicdvl.raster.io.orientation import open_as_shown
from semicdvl.reading.regular_files import require_file_or_folder

DAMAGED_REMEDY = "Copy or download the file again; `gdalinfo -checksum FILE` shows whether it is complete"
ARCHIVE_PREFIX = re.compile(r"/vsi(zip|tar|gzip|7z|rar)/")
"""GDAL's prefix of the path of a file in an archive."""
JPEG_TAIL_BYTES = 65_536
"""The end marker of a complete JPEG lies in its last bytes; cameras may append some of their own."""
MIN_PIXEL_M = 1e-9
"""A pixel that is smaller on the ground lies on a pole, or beyond it."""
MAX_DIRECTORIES = 10_000
"""So many directories of a TIFF are looked at."""
RAW_DRIVERS = ("ENVI", "EHdr")
"""Formats without a mark of their own: GDAL takes any bytes for pixels that have a header (`.hdr`) beside them."""
_CONVERT = "Convert it first, e.g. `gdal_translate -of COG IN OUT.tif`"
OTHER_FORMATS = {
    b"PK\x03\x04": ("a zip archive", "Name the image in it, e.g. /vsizip/{path}/IMAGE.tif"),
    b"\x1f\x8b": ("a gzip archive", "Unpack it first"),
    b"CDF": ("netCDF", _CONVERT),
    b"\x89HDF": ("HDF5 or netCDF-4", _CONVERT),
    b"\x0e\x03\x13\x01": ("HDF4", _CONVERT),
    b"%PDF": ("PDF", _CONVERT),
    b"GRIB": ("GRIB", _CONVERT),
}
"""First bytes of a file -> its format, which is not read, and what to do."""
SAMPLED_BLOCKS = 12
"""Along each axis, of the blocks of a TIFF that are checked for pixels."""


def open_dataset(gdal_name: str, *, display_name: str, allow_outside: bool = False) -> Any:
    """Open one file with rasterio.

    Args:
        gdal_name: what GDAL opens.
        display_name: name of the file in messages.
        allow_outside: whether a VRT may have sources outside of its folder (`raster.file_access`).

    Raises:
        InputError: the file is missing, unreachable, no image, damaged or without pixels, its pixels are complex or
            64-bit whole numbers, or it has a CRS and nothing that says where its pixels lie.
    """
    local = is_local_name(gdal_name)
    if local:
        require_file_or_folder(gdal_name, remedy="Give a GeoTIFF, PNG or JPEG file")
    if local and not Path(gdal_name).exists():
        raise InputError(display_name, "The file does not exist", "Check the spelling and the folder")
    if local and Path(gdal_name).is_dir():
        raise InputError(display_name, "This is a folder, not an image file", "Give a GeoTIFF, PNG or JPEG file")
    try:
        with ignore_not_georeferenced():
            dataset = open_raster(gdal_name, display_name=display_name, local=local, allow_outside=allow_outside)
            dataset.transform  # noqa: B018  (reading it warns, once)
    except RasterioError as error:
        raise _open_error(gdal_name, display_name, error) from error
    try:
        if local and dataset.driver == "PNG":
            _check_png(Path(gdal_name), display_name)
        if local and dataset.driver == "JPEG":
            _check_jpeg(Path(gdal_name), display_name)
        if local and dataset.driver in RAW_DRIVERS:
            _check_raw(Path(gdal_name), display_name)
        if dataset.driver == "GTiff":
            _check_tiff(gdal_name, dataset, display_name)
        _check_georeferencing(dataset, display_name)
        check_numeric(dataset.dtypes, display_name)
        return open_as_shown(dataset, Path(gdal_name)) if local and dataset.crs is None else dataset
    except BaseException:
        dataset.close()
        raise


def check_numeric(dtypes: Sequence[str], display_name: str | Path) -> None:
    """Reject pixels that are not plain numbers of at most 32 bits, or 64-bit fractions.

    Raises:
        InputError: the pixels are complex, as of SAR images, or 64-bit whole numbers.
    """
    for dtype in dict.fromkeys(dtypes):
        if dtype.startswith("complex"):
            problem = f"The pixels are complex numbers ({dtype}), as of SAR images with phase"
            remedy = "Write the amplitude first, e.g. `gdal_calc.py -A IN --outfile OUT --type Float32 --calc 'abs(A)'`"
            raise InputError(display_name, problem, remedy)
        if dtype in ("int64", "uint64"):
            problem = f"The pixels are 64-bit whole numbers ({dtype})"
            remedy = "Convert them first, e.g. `gdal_translate -ot Float32 IN OUT`, or `-ot UInt16` where they fit"
            raise InputError(display_name, problem, remedy)


def count_vrt_bits(gdal_name: str) -> int:
    """Return how many bits the files of a virtual raster store per value; 8 where they differ, or do not say it.

    `gdalbuildvrt` drops the tag that says so, and the values alone cannot tell: an image of 8 bits may be dark.
    """
    found: set[str | None] = set()
    for path in list_vrt_sources(Path(gdal_name), gdal_name, home=None):
        with ignore_not_georeferenced(), open_raster(str(path), display_name=path, local=True) as source:
            found |= {source.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") for band in source.indexes}
    bits = found.pop() if len(found) == 1 else None
    return int(bits) if bits is not None and bits.isdecimal() else 8


def read_grid(dataset: Any) -> Grid:
    """Return the grid of an open rasterio dataset, without the heights of its CRS."""
    return Grid(drop_height(dataset.crs), dataset.transform, dataset.height, dataset.width)


def list_files(dataset: Any, gdal_name: str) -> tuple[Path, ...]:
    """Return the local files that GDAL reads for an open dataset, the image's own first; none for a remote image."""
    if is_remote_name(gdal_name):
        return ()
    paths = tuple(path for path in map(Path, dict.fromkeys(dataset.files)) if path.is_file())
    return paths or _find_holder(gdal_name)


def _find_holder(gdal_name: str) -> tuple[Path, ...]:
    """Return the file of a photograph that was turned upright in memory, or the archive that an image lies in."""
    archived = ARCHIVE_PREFIX.match(gdal_name)
    inside = Path(gdal_name[archived.end() :] if archived else gdal_name)
    return tuple(path for path in (inside, *(inside.parents if archived else ())) if path.is_file())[:1]


def note_unused_overviews(gdal_name: str) -> tuple[str, ...]:
    """Return a note where the overviews beside an image that was opened are not used; none of the network."""
    path = Path(gdal_name)
    if not is_local_name(gdal_name) or not path.is_file():
        return ()
    fault = describe_unused_overviews(path)
    if fault is None:
        return ()
    remedy = f"`gdaladdo -clean -ro {path.name}` and `gdaladdo -ro {path.name}` make them again"
    return (f"Overviews beside {path.name} are not used, which is slower: {fault} ({remedy}).",)


def describe_root_cause(error: BaseException) -> str:
    """Return the first line of an error's first cause: rasterio hides GDAL's own message behind its exception."""
    while error.__cause__ is not None or error.__context__ is not None:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _open_error(gdal_name: str, display_name: str, error: RasterioError) -> InputError:
    cause = describe_root_cause(error).replace(gdal_name, display_name)
    if is_remote_name(gdal_name):
        remedy = (
            "Check the address and the network; private buckets need credentials in the environment "
            "(AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, ...), public ones AWS_NO_SIGN_REQUEST=YES"
        )
        return InputError(display_name, f"The address cannot be reached or is no image ({cause})", remedy)
    if is_local_name(gdal_name) and (other := _find_other_format(Path(gdal_name))) is not None:
        return InputError(display_name, f"This is {other[0]}, not an image file", other[1])
    remedy = "Give a GeoTIFF, PNG, JPEG or another plain raster format, or convert it with `gdal_translate -of COG`"
    return InputError(display_name, f"The file cannot be opened as an image ({cause})", remedy)


def _find_other_format(path: Path) -> tuple[str, str] | None:
    """Return name and remedy of a format that is not read, by a file's first bytes; None if it is none of them."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError:
        return None
    found = (named for mark, named in OTHER_FORMATS.items() if head.startswith(mark))
    return next(((name, remedy.format(path=path)) for name, remedy in found), None)


def _check_raw(path: Path, display_name: str) -> None:
    """Refuse a file of another format that has the header of raw pixels beside it."""
    if (other := _find_other_format(path)) is not None:
        header = path.with_suffix(".hdr").name
        problem = f"This is {other[0]}; the header {header} beside it is of another file, and its bytes are no pixels"
        raise InputError(display_name, problem, other[1])


def _check_png(path: Path, display_name: str) -> None:
    """Reject a truncated PNG, whose rest GDAL reads as black; Pillow checks the chunks without decoding."""
    try:
        with path.open("rb") as handle:
            PngImageFile(handle).verify()  # not `Image.open`, which takes a large scene for an attack
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(display_name, f"The PNG file is damaged ({error})", DAMAGED_REMEDY) from error


def _check_jpeg(path: Path, display_name: str) -> None:
    """Reject a truncated JPEG, whose rest GDAL reads as grey."""
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - JPEG_TAIL_BYTES))
        if b"\xff\xd9" not in handle.read():
            raise InputError(display_name, "The JPEG file is damaged: its end is missing", DAMAGED_REMEDY)


def _check_tiff(gdal_name: str, dataset: Any, display_name: str) -> None:
    """Reject a TIFF header without pixels; GDAL reads blocks that were never written as zeros."""
    local = is_local_name(gdal_name) and Path(gdal_name).is_file()
    if local and not _has_all_directories(Path(gdal_name)):
        problem = "The TIFF file is damaged: one of its directories lies beyond its end"
        raise InputError(display_name, problem, DAMAGED_REMEDY)
    size_bytes = Path(gdal_name).stat().st_size if local else None
    tall, wide = dataset.block_shapes[0]
    blocks = (_spread_indices(-(-length // step)) for length, step in ((dataset.width, wide), (dataset.height, tall)))
    with rasterio.Env():  # GDAL's own messages go to the log, not to the console
        for block in itertools.product(*blocks):
            offset = dataset.get_tag_item("BLOCK_OFFSET_{}_{}".format(*block), "TIFF", bidx=1)
            if offset is not None and (size_bytes is None or int(offset) < size_bytes):
                return
    size = f"{dataset.width:,} x {dataset.height:,} px"
    problem = f"The file has a header for {size} but contains no pixels; it may be truncated"
    raise InputError(display_name, problem, DAMAGED_REMEDY)


def _has_all_directories(path: Path) -> bool:
    """Tell whether all directories (pages, overviews, masks) that a TIFF names begin and end in it, in no circle."""
    size, seen = path.stat().st_size, set[int]()
    with path.open("rb") as handle:
        head = handle.read(16)
        order, is_big = ">" if head[:2] == b"MM" else "<", head[2:4] in (b"+\0", b"\0+")
        count_type, offset_type, entry_bytes = ("Q", "Q", 20) if is_big else ("H", "I", 12)
        place = head[8:16] if is_big else head[4:8]
        while len(place) == struct.calcsize(offset_type):
            (offset,) = struct.unpack(order + offset_type, place)
            if offset == 0 or len(seen) > MAX_DIRECTORIES:
                return True
            if offset in seen or offset >= size:
                return False
            seen.add(offset)
            handle.seek(offset)
            counted = handle.read(struct.calcsize(count_type))
            if len(counted) < struct.calcsize(count_type):
                return False
            handle.seek(struct.unpack(order + count_type, counted)[0] * entry_bytes, 1)
            place = handle.read(struct.calcsize(offset_type))
    return False


def _spread_indices(count: int) -> list[int]:
    """Return at most `SAMPLED_BLOCKS` numbers below `count`, spread evenly."""
    last = SAMPLED_BLOCKS - 1
    return sorted({round(number * (count - 1) / last) for number in range(SAMPLED_BLOCKS)})


def _check_georeferencing(dataset: Any, display_name: str) -> None:
    """Reject an image that names a CRS and nothing that says where its pixels lie, or how large they are."""
    if dataset.crs is not None and dataset.crs.is_geographic and not is_of_earth(dataset.crs.to_wkt()):
        problem = "The CRS is in degrees on another body than the earth, so the size of a pixel is not known"
        raise InputError(display_name, problem, "Project it first, e.g. `gdalwarp -t_srs '+proj=eqc +R=...' IN OUT`")
    located = dataset.gcps[0] or dataset.rpcs is not None or not dataset.transform.is_identity
    if dataset.crs is None:
        return
    code = dataset.crs.to_epsg()
    name = f"EPSG:{code}" if code else "without an EPSG code"
    if not located:
        problem = (
            f"The image names a CRS ({name}) but has no geotransform, so position and size of its pixels are not known"
        )
        remedy = (
            "Assign the corners (`gdal_edit.py -a_ullr`), or remove the CRS of both images (`gdal_edit.py -a_srs None`)"
            " to compare them pixel by pixel"
        )
        raise InputError(display_name, problem, remedy)
    grid = read_grid(dataset)
    try:  # at the centre only: the corners of a whole disk of the earth, or of a world map, lie beside it
        placed = grid.has_position_on_earth and not grid.transform.is_identity
        sides_m = measure_offset_m(grid, 1.0, 1.0) if placed else (1.0, 1.0)
    except CPLE_BaseError:
        sides_m = math.nan, math.nan
    if not MIN_PIXEL_M < min(sides_m) <= max(sides_m) < math.inf:
        x, y = grid.centre
        problem = f"Its coordinates (x {x:.9g}, y {y:.9g}) do not exist in its CRS ({name})"
        raise InputError(display_name, problem, "Assign the CRS that they are in (`gdal_edit.py -a_srs EPSG:... FILE`)")
    try:
        if code is None:
            pyproj.CRS.from_wkt(dataset.crs.to_wkt()).to_wkt("WKT1_GDAL")  # as GeoPackage names it
    except pyproj.exceptions.CRSError as error:
        problem = f"Its CRS ('{dataset.crs.to_wkt()[:60]}...') cannot be stored in layers of polygons"
        remedy = "Warp it to a common CRS first, e.g. `gdalwarp -t_srs EPSG:6933 IN OUT`"
        raise InputError(display_name, problem, remedy) from error
