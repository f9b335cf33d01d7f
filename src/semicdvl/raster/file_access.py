"""What image files may be and may lead to: formats without references, and virtual rasters that stay in their folder.

A file from anywhere must not make the program read another file or reach for the network. GDAL's formats for maps on
servers (WMS, WMTS, WCS, ...), for data beside a header (ERS, PDS, HDF5 with external links, ...) and for tile indices
do just that; `RASTER_DRIVERS` leaves them out. A virtual raster (VRT) is made of other files by nature: its text is
checked before GDAL sees it. Every source is a local file of an allowed format below the folder of the VRT, and there
are no bands of raw bytes, expressions or code. A user lifts the limit of the folder with `--allow-outside`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from semicdvl.errors import InputError
from semicdvl.raster.crs_files import FILE_OF_CRS, require_plain_crs
from semicdvl.raster.databases import DATABASE_HEAD, require_plain_database
from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced, silence_libtiff
from semicdvl.raster.overview_files import (
    NO_OVERVIEWS,
    find_foreign_companion,
    find_overview_fault,
    list_overview_files,
)
from semicdvl.reading.limits import MAX_COORDINATE
from semicdvl.reading.regular_files import find_file_fault, require_plain_companions, resolve_links, shorten_path

RASTER_DRIVERS = (
    "GTiff",
    "PNG",
    "JPEG",
    "JP2OpenJPEG",
    "JP2KAK",
    "JP2ECW",
    "JP2MrSID",
    "ECW",
    "MrSID",
    "JPEGXL",
    "WEBP",
    "BMP",
    "GIF",
    "BIGGIF",
    "HFA",
    "ENVI",
    "EHdr",
    "AAIGrid",
    "NITF",
    "GPKG",
    "MBTiles",
)
"""GDAL's names of the formats that an image file may have; VRT is added once a file's text is checked."""
NAMED_DRIVERS = (*RASTER_DRIVERS, "SENTINEL2", "WMS", "WMTS", "WCS", "VRT")
"""Formats of a name with a driver's prefix, such as `WMTS:https://...`, which the user typed."""
SELF_CONTAINED_DRIVERS = frozenset({"GTiff", "PNG", "JPEG", "JP2OpenJPEG", "WEBP", "BMP", "GIF", "BIGGIF"})
"""Formats that name no other file, but for files beside them of the same name."""

ACCESS_SETTINGS = {
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    "CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO",
}
"""GDAL settings under which images are read: no code, no raw bytes of other files, nothing written beside them."""
LOCAL_SETTINGS = ACCESS_SETTINGS | {"CPL_VSIL_CURL_ALLOWED_FILENAME": "none"}
"""The same for local images: no file of the network exists."""

MAX_VRT_BYTES = 256 * 2**20
MAX_VRT_DEPTH = 8
"""A VRT may be made of VRTs, so many levels deep."""
VRT_CLASSES = frozenset(
    {
        "vrtwarpeddataset",
        "vrtpansharpeneddataset",
        "vrtsourcedrasterband",
        "vrtwarpedrasterband",
        "vrtpansharpenedrasterband",
    }
)
VRT_ELEMENTS = frozenset(
    """
    vrtdataset srs geotransform gcplist gcp metadata mdi blockxsize blockysize maskband overviewlist vrtrasterband
    description unittype offset scale categorynames category colorinterp colortable entry nodatavalue hidenodatavalue
    histograms histitem histmin histmax bucketcount includeoutofrange approximate histcounts
    overview simplesource complexsource averagedsource nodatafrommasksource sourcefilename
    sourceband sourceproperties srcrect dstrect nodata usemaskband scaleoffset scaleratio lut exponent
    srcmin srcmax dstmin dstmax colortablecomponent clamp maskvaluethreshold remappedvalue
    gdalwarpoptions warpmemorylimit resamplealg workingdatatype option sourcedataset transformer genimgprojtransformer
    approxtransformer maxerror basetransformer reprojecttransformer reprojectiontransformer sourcesrs targetsrs
    srcgeotransform srcinvgeotransform dstgeotransform dstinvgeotransform gcptransformer order reversed refine
    bandlist bandmapping srcnodatareal srcnodataimag dstnodatareal dstnodataimag srcalphaband dstalphaband initdest
    pansharpeningoptions panchroband spectralband algorithm algorithmoptions weights resampling numthreads bitdepth
    spatialextentadjustment options cutline cutlineblenddist srcgcptransformer minimumgcps tolerance maxorder
    """.split()
)
"""Elements of a VRT that are understood here, in lower case; GDAL does not distinguish the cases."""
REFERENCE_ELEMENTS = ("sourcefilename", "sourcedataset")
REPROJECTION_OPTIONS = frozenset({"AREA_OF_INTEREST", "SRC_COORDINATE_EPOCH", "DST_COORDINATE_EPOCH"})
"""Options of a change of CRS (`key=`) that are numbers; another one holds a pipeline of PROJ, which opens files."""
_HEAD_BYTES = 65_536
_VRT_SIGN = b"<vrtdataset"
_PREFIXED = re.compile(r"[A-Za-z][A-Za-z0-9_+.-]+:|<|/vsi")
CRS_TEXTS = (".prj", ".PRJ", ".hdr", ".HDR")
"""Suffixes of texts beside an image that name its CRS; GDAL opens what they name while it opens the image."""
MIN_PIXEL_AREA = 1e-24
"""Area of a pixel, in the square of any unit; a square millimetre is 8e-17 square degrees."""
_OUTSIDE = "Move the files below its folder, or allow this with --allow-outside (in Python: allow_outside=True)"


def open_raster(gdal_name: str, *, display_name: str | Path, local: bool, allow_outside: bool = False) -> Any:
    """Open a raster with the formats that are allowed for its kind of name.

    Args:
        gdal_name: what GDAL opens.
        display_name: name of the file in messages.
        local: whether it is the path of a file.
        allow_outside: whether a VRT may have sources outside of its folder, or lie in an archive or at an address.

    Raises:
        InputError: the file leads to the network, or to files outside of its folder.
        rasterio.errors.RasterioError: it cannot be opened.
    """
    silence_libtiff()
    if re.search("[\udc80-\udcff]", gdal_name):  # bytes that Python keeps so; GDAL takes UTF-8 alone
        problem = "Its path has bytes that are no UTF-8"
        raise InputError(display_name, problem, "Rename the file or folder, e.g. with `convmv -t utf-8`")
    if local:
        return _open_local(Path(gdal_name), display_name, allow_outside=allow_outside)
    prefixed = not gdal_name.startswith("/vsi")
    virtual = ("VRT",) if allow_outside else ()
    with rasterio.Env(**ACCESS_SETTINGS):
        dataset = DatasetReader(gdal_name, driver=list(NAMED_DRIVERS if prefixed else RASTER_DRIVERS + virtual))
    return _check_dataset(dataset, display_name, home=None)


def _open_local(path: Path, display_name: str | Path, *, allow_outside: bool) -> Any:
    home = resolve_links(path).parent
    require_plain_companions(path)
    head = _read_head(path)
    virtual = _VRT_SIGN in head
    if virtual:
        for source in list_vrt_sources(path, display_name, home=None if allow_outside else home):
            _check_source(source, display_name)
    for text in (path.with_name(f"{path.name}.aux.xml"), *map(path.with_suffix, CRS_TEXTS)):
        if text.is_file():
            require_plain_crs(text.read_text(encoding="latin-1"), display_name)
    if head.startswith(DATABASE_HEAD.lower()):
        require_plain_database(path, display_name, remedy="Copy its pixels to a GeoTIFF with `gdal_translate`")
    if (companion := find_foreign_companion(path)) is not None:
        problem = f"The file {companion.name} beside it is no TIFF, so it holds neither overviews nor a mask of it"
        raise InputError(display_name, problem, "Delete it, or move it to another folder")
    drivers = ("VRT",) if virtual else RASTER_DRIVERS
    with rasterio.Env(**LOCAL_SETTINGS):
        name = str(path.absolute() if _PREFIXED.match(str(path)) else path)
        dataset = DatasetReader(name, driver=list(drivers))  # `rasterio.open` takes one driver only
        _check_dataset(dataset, display_name, home=home)
        if find_overview_fault(dataset, path) is not None:
            dataset.close()
            dataset = DatasetReader(name, driver=list(drivers), **NO_OVERVIEWS)
    if not allow_outside and dataset.driver not in SELF_CONTAINED_DRIVERS:
        for file in dataset.files:
            if not resolve_links(Path(file)).is_relative_to(home) and resolve_links(Path(file)) != resolve_links(path):
                dataset.close()
                raise InputError(display_name, f"It refers to {file}, outside of its folder", _OUTSIDE)
    return dataset


def _check_dataset(dataset: Any, display_name: str | Path, *, home: Path | None) -> Any:
    """Return a dataset whose overviews lie beside it, and whose pixels have a size and a place; close another.

    Raises:
        InputError: it has no band, names other overviews, or its geotransform has numbers that are not finite or beyond
            any map, or pixels without an area.
    """
    named = dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE", "").removeprefix(":::BASE:::")
    inside = home is not None and not _PREFIXED.match(named) and resolve_links(home / named).is_relative_to(home)
    if named and not inside:
        dataset.close()
        remedy = "Copy its pixels to a plain GeoTIFF with `gdal_translate`, and give that"
        raise InputError(display_name, "It names overviews outside of its folder", remedy)
    if dataset.count == 0:
        pages = [str(name) for name in dataset.subdatasets]
        dataset.close()
        problem = f"It holds {len(pages)} images" if pages else "It holds no image"
        remedy = "Write one of them to a file of its own, e.g. `gdal_translate -sds IN OUT`"
        raise InputError(display_name, problem, remedy if pages else "Give a GeoTIFF, PNG or JPEG file")
    for wkt in [crs.to_wkt() for crs in (dataset.crs, dataset.gcps[1]) if crs is not None]:
        if FILE_OF_CRS.search(wkt) is not None:
            try:
                require_plain_crs(wkt, display_name)
            except InputError:
                dataset.close()
                raise
    transform = dataset.transform
    numbers = (*tuple(transform)[:6], *(transform @ (dataset.width, dataset.height)))
    fits = all(map(math.isfinite, numbers)) and max(map(abs, numbers)) <= MAX_COORDINATE
    if not fits or abs(transform.determinant) < MIN_PIXEL_AREA:
        dataset.close()
        problem = "Its geotransform places the pixels nowhere: its numbers are not finite, too large or too small"
        raise InputError(display_name, problem, "Set it again, e.g. with gdal_translate -a_ullr")
    return dataset


# ------------------------------------------------------------------------------------------------ virtual rasters
def is_vrt(path: Path) -> bool:
    """Tell whether GDAL may take a file for a virtual raster."""
    return _VRT_SIGN in _read_head(path)


def _read_head(path: Path) -> bytes:
    """Return how a file begins, in lower case."""
    with path.open("rb") as handle:
        return handle.read(_HEAD_BYTES).lower()


def list_vrt_sources(path: Path, display_name: str | Path, *, home: Path | None, depth: int = 0) -> Iterator[Path]:
    """Yield the files that a virtual raster is made of, those of VRTs among them included.

    Args:
        path: the VRT.
        display_name: name of the outermost VRT in messages.
        home: folder that all sources have to lie below; None: anywhere on this machine.
        depth: how many VRTs it lies in.

    Raises:
        InputError: it is damaged, holds what is not allowed, or a source is no file below `home`.
    """
    if depth > MAX_VRT_DEPTH:
        raise InputError(display_name, f"It is a VRT of VRTs, more than {MAX_VRT_DEPTH} levels deep", "Flatten it")
    for element in _parse_vrt(path, display_name):
        name, folder = element.text or "", resolve_links(path).parent
        relative = any(key.lower() == "relativetovrt" and value.strip() != "0" for key, value in element.items())
        if not name or _PREFIXED.match(name.lstrip()):
            problem = f"Its source '{name[:120]}' is no local file"
            raise InputError(display_name, problem, "Give an address itself, not through a file; or download the image")
        source = folder / name if relative else Path(name).absolute()
        if (fault := find_file_fault(source)) is not None:
            raise InputError(display_name, f"Its source {shorten_path(name)} {fault}", "Put the file back")
        if home is not None and not resolve_links(source).is_relative_to(home):
            raise InputError(display_name, f"Its source {shorten_path(name)} lies outside of its folder", _OUTSIDE)
        if not source.is_file():
            raise InputError(display_name, f"Its source {shorten_path(name)} does not exist", "Put the file back")
        if is_vrt(source):
            yield from list_vrt_sources(source, display_name, home=home, depth=depth + 1)
        else:
            yield source


def _parse_vrt(path: Path, display_name: str | Path) -> list[ET.Element]:
    """Return the elements of a VRT that name a file.

    Raises:
        InputError: it is no XML, or holds elements that are not allowed.
    """
    if path.stat().st_size > MAX_VRT_BYTES:
        raise InputError(display_name, "The VRT is too large", f"Give one of at most {MAX_VRT_BYTES:,} bytes")
    text = path.read_bytes()
    try:
        if re.search(rb"<!\s*(doctype|entity)", text, re.IGNORECASE):
            raise ValueError("it declares entities")
        root = ET.fromstring(text)
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        remedy = "Build it again with `gdalbuildvrt`"
        raise InputError(display_name, f"The VRT {path.name} is damaged ({error})", remedy) from error
    references = []
    for element in root.iter():
        tag = str(element.tag).lower()
        classes = [value for key, value in element.items() if key.lower() == "subclass"]
        unknown = [value for value in classes if value.lower() not in VRT_CLASSES]
        keys = [value for key, value in element.items() if key.lower() == "key" and tag == "option"]
        unknown += [key for key in keys if key not in REPROJECTION_OPTIONS]
        if tag not in VRT_ELEMENTS or unknown:
            found = unknown[0] if unknown else element.tag
            problem = f"The VRT holds '{str(found)[:60]}', which may lead to other files, run code or take hours"
            raise InputError(display_name, problem, "Copy its pixels to a GeoTIFF with `gdal_translate`, and give that")
        require_plain_crs(element.text or "", display_name)
        if tag in REFERENCE_ELEMENTS:
            references.append(element)
    return references


def _check_source(path: Path, display_name: str | Path) -> None:
    """Make sure that a source is of an allowed format and leads nowhere else itself."""
    try:
        _open_local(path, display_name, allow_outside=False).close()
        if (fault := describe_unused_overviews(path, by_age=False)) is not None:
            remedy = (
                f"Make them again (`gdaladdo -clean -ro {path.name}`, `gdaladdo -ro {path.name}`) or delete the file"
            )
            raise InputError(display_name, f"Of its source {path.name}, {fault}", remedy)
    except RasterioError as error:
        remedy = "Sources have to be GeoTIFF, PNG, JPEG or another plain raster format"
        raise InputError(display_name, f"Its source {path.name} cannot be used as an image", remedy) from error


# ------------------------------------------------------------------------------------------------ overviews
def describe_unused_overviews(path: Path, *, by_age: bool = True) -> str | None:
    """Say why the overviews beside an image cannot be used; None where they can, or there are none.

    Args:
        path: the image, which was opened by `open_raster`.
        by_age: as of `overview_files.find_overview_fault`.

    Raises:
        rasterio.errors.RasterioError: the image cannot be opened.
    """
    if not list_overview_files(path):
        return None
    with rasterio.Env(**LOCAL_SETTINGS), ignore_not_georeferenced():
        drivers = ("VRT",) if is_vrt(path) else RASTER_DRIVERS
        with DatasetReader(str(path.absolute()), driver=list(drivers)) as dataset:
            return find_overview_fault(dataset, path, by_age=by_age)
