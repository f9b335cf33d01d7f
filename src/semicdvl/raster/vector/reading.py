"""Read vector files from anywhere: a few plain formats, known by their content, that lead to nothing else.

OGR has drivers that fetch data from servers, open further files or run SQL for a local file of the right content (OGR
VRT, WFS, GDALG, ...), and it cannot be told which drivers it may use here. So a file's first bytes decide whether OGR
sees it at all (`VECTOR_CONTENTS`). GML, for which OGR writes a file of its own beside the input, is read from memory.
"""

from __future__ import annotations

import json
import mmap
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError
from shapely.errors import ShapelyError

from semicdvl.errors import InputError
from semicdvl.raster.crs_files import require_plain_crs
from semicdvl.raster.databases import require_plain_database
from semicdvl.raster.io.georeference_warnings import ignore_warnings
from semicdvl.reading.folder_kinds import describe_folder
from semicdvl.reading.regular_files import require_file_or_folder, require_plain_companions

HEAD_BYTES = 65_536
MAX_GML_BYTES = 2**30
"""GML is held in memory while it is read."""
VECTOR_CONTENTS: dict[str, re.Pattern[bytes]] = {
    "GeoPackage or SQLite": re.compile(rb"SQLite format 3\0"),
    "FlatGeobuf": re.compile(rb"fgb.fgb", re.DOTALL),
    "Shapefile": re.compile(rb"\x00\x00\x27\x0a"),
    "GeoJSON": re.compile(rb"(\xef\xbb\xbf)?\s*\{"),
    "GML": re.compile(rb"(\xef\xbb\xbf)?\s*<(?![^>]*vrt)(?=.*www\.opengis\.net/gml)", re.DOTALL | re.IGNORECASE),
    "KML": re.compile(rb"(\xef\xbb\xbf)?\s*(?=<)(?=.*<kml\b)", re.DOTALL),
}
"""Format -> how its files begin; what begins otherwise is not opened."""
REFUSED_CONTENT = re.compile(
    rb"<\s*(ogrvrt|vrtdataset|gdal_|ogrwfs)|<\s*!\s*(doctype|entity)|\"type\"\s*:\s*\"gdal_",
    re.IGNORECASE,
)
"""Beginnings of files that lead to other files or to the network, whatever else they look like."""
_CRS_KEY = re.compile(rb'"(c|\\u00[46]3)(r|\\u00[57]2)(s|\\u00[57]3)"\s*:', re.IGNORECASE)
"""A key `crs` of JSON, however it is written."""
LAYER_SUFFIXES = frozenset({".shp", ".gpkg", ".fgb", ".sqlite", ".geojson", ".json", ".gml", ".kml"})
COMPANION_SUFFIXES = frozenset(
    {
        ".shx",
        ".dbf",
        ".prj",
        ".cpg",
        ".cst",
        ".qix",
        ".sbn",
        ".sbx",
        ".qpj",
        ".qmd",
        ".qml",
        ".txt",
        ".xml",
        ".md",
        ".pdf",
    }
)
"""Files of an archive that are opened as layers, and those that may lie beside them."""
GEODATABASE_TABLE = "a00000001.gdbtable"
"""File by which the folder of a file geodatabase is known."""
SETTINGS = {
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "none",
    "GML_DOWNLOAD_SCHEMA": "NO",
    "GML_SKIP_RESOLVE_ELEMS": "ALL",
    "LIBKML_RESOLVE_STYLE": "NO",
    "OGR_SQLITE_LIST_VIRTUAL_OGR": "NO",
    "OGR_SQLITE_STATIC_VIRTUAL_OGR": "NO",
    "CPL_VSIL_GZIP_WRITE_PROPERTIES": "NO",
    "GDAL_VRT_ENABLE_PYTHON": "NO",
}
"""OGR's settings while it reads: no network, no schemas or linked files, no views of other files."""
REMEDY = "Give a GeoPackage, GeoJSON, FlatGeobuf, Shapefile or GeoParquet file"


def list_layers(path: Path) -> list[tuple[str, str | None]]:
    """Return name and type of geometry of each layer; the type is None for a table without one.

    Raises:
        InputError: the file is of no allowed format.
        pyogrio.errors.DataSourceError: it is damaged.
    """
    with _open_source(path) as source:
        return [(str(name), kind) for name, kind in pyogrio.list_layers(source)]


def read_layer_info(path: Path, *, layer: str | None = None) -> dict[str, Any]:
    """Return what a layer is: number of features, names of fields, CRS (`pyogrio.read_info`).

    Raises:
        InputError: the file is of no allowed format.
        pyogrio.errors.DataSourceError, DataLayerError: it is damaged, or has no such layer.
    """
    with _open_source(path) as source:
        found: dict[str, Any] = pyogrio.read_info(source, layer=layer)
        return found


def read_layer(path: Path, *, layer: str | None = None, columns: Sequence[str] | None = None) -> gpd.GeoDataFrame:
    """Read a layer.

    Args:
        path: the file.
        layer: name of the layer; None: the first one.
        columns: fields to read; None: all.

    Raises:
        InputError: the file is of no allowed format.
        pyogrio.errors.DataSourceError, DataLayerError: it is damaged, or has no such layer.
    """
    with _open_source(path) as source:
        return pyogrio.read_dataframe(source, layer=layer, columns=None if columns is None else list(columns))


def read_coded_layer(
    path: Path, *, layer: str, columns: Sequence[str]
) -> tuple[dict[str, Any], Sequence[bytes | None], list[Any]]:
    """Return the facts of a layer, its shapes as they are coded (WKB), and the values of its columns.

    Raises:
        InputError, pyogrio.errors.DataSourceError, DataLayerError: as `read_layer`.
    """
    with _open_source(path) as source:
        facts, _, coded, fields = pyogrio.raw.read(source, layer=layer, columns=list(columns))
        return facts, coded, fields


class BrokenShapesError(DataSourceError):  # type: ignore[misc]
    """A file can be read, and shapes in it are none: a ring that is not closed, or of two points."""


@contextmanager
def _open_source(path: Path) -> Iterator[Path | str | bytes]:
    """Give what pyogrio opens, with OGR's settings in force."""
    require_plain_companions(path)
    kind = find_vector_kind(path)
    source: Path | str | bytes = _read_gml(path) if kind == "GML" else path.absolute()
    if isinstance(source, bytes):
        require_plain_crs(source.decode("latin-1"), path)
    if kind == "Shapefile":
        _check_projection(path)
    elif kind == "GeoJSON":
        _check_geojson(path)
    elif kind == "GeoPackage or SQLite":
        require_plain_database(path, path, remedy="Save the layer as a table, e.g. `ogr2ogr OUT.gpkg IN.gpkg LAYER`")
    elif kind == "archive":
        source = _find_place_in_archive(path)
    elif kind == "file geodatabase":
        for part in path.iterdir():
            require_file_or_folder(part, remedy=REMEDY)
    before = {name: pyogrio.get_gdal_config_option(name) for name in SETTINGS}
    pyogrio.set_gdal_config_options(SETTINGS)
    try:
        with ignore_warnings(RuntimeWarning):  # of GDAL, about what is mended here or refused
            yield source
    except (DataSourceError, DataLayerError):
        raise
    except Exception as error:  # pyogrio and what it builds on answer damaged files with errors of all kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        fault = BrokenShapesError if isinstance(error, ShapelyError) else DataSourceError
        raise fault(f"it is damaged: {reason}") from error
    finally:
        pyogrio.set_gdal_config_options(before)


def find_vector_kind(path: Path) -> str:
    """Return the format of a vector file, by its content.

    Raises:
        InputError: it is none of `VECTOR_CONTENTS`, or leads to other files.
    """
    require_file_or_folder(path, remedy=REMEDY)
    if (path / GEODATABASE_TABLE).is_file():
        return "file geodatabase"
    if path.is_dir():
        remedy = "Give a GeoPackage, GeoJSON, Shapefile or another vector file"
        raise InputError(path, f"is {describe_folder(path)}, not a layer", remedy)
    try:
        with path.open("rb") as handle:
            head = handle.read(HEAD_BYTES)
    except OSError as error:
        raise InputError(path, f"cannot be read ({error.strerror})", "Check the path") from error
    if head.startswith(b"PK"):
        _check_archive(path)
        return "archive"
    require_plain_crs(head.decode("latin-1"), path)
    return _find_kind_of_content(path, head)


def _find_kind_of_content(path: Path, head: bytes) -> str:
    """Return the format of a file that begins so."""
    kind = next((name for name, begins in VECTOR_CONTENTS.items() if begins.match(head)), None)
    if kind is None:
        raise InputError(path, "is not a vector file of a known format", REMEDY)
    if kind in ("GML", "KML", "GeoJSON") and REFUSED_CONTENT.search(head):
        raise InputError(path, "leads to other files, services or entities, which are not followed", REMEDY)
    return kind


def _check_archive(path: Path) -> None:
    """Refuse a ZIP archive that holds anything but Shapefiles, or other layers, of allowed formats.

    Raises:
        InputError: a file in it is of another format, or it is damaged or encrypted.
    """
    found = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                suffix = Path(member.filename).suffix.lower()
                if suffix in LAYER_SUFFIXES:
                    with archive.open(member) as handle:
                        kind = _find_kind_of_content(path, handle.read(HEAD_BYTES))
                    if kind in ("GML", "GeoJSON"):
                        raise InputError(path, f"holds {kind}, which is read from plain files only", "Unpack it first")
                    found += 1
                elif suffix in (".prj", ".qpj"):
                    with archive.open(member) as handle:
                        require_plain_crs(handle.read(HEAD_BYTES).decode("latin-1"), path)
                elif not member.is_dir() and suffix not in COMPANION_SUFFIXES:
                    raise InputError(path, f"holds '{member.filename[:100]}'", "Unpack it, and give the layer itself")
    except (OSError, RuntimeError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(path, f"is not an archive that can be read ({error})", "Unpack it first") from error
    if not found:
        raise InputError(path, "holds no vector layer", REMEDY)


def _find_place_in_archive(path: Path) -> Path | str:
    """Return what OGR opens of an archive: all of it, or the one folder or file with layers in it.

    Raises:
        InputError: the layers lie in several folders.
    """
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if Path(name).suffix.lower() in LAYER_SUFFIXES]
    folders = sorted({Path(name).parent.as_posix() for name in names})
    if folders == ["."]:
        return path.absolute()
    if len(folders) > 1:
        raise InputError(path, f"holds layers in {len(folders)} folders", "Unpack it, and give the layer itself")
    return f"/vsizip/{path.absolute()}/{names[0] if len(names) == 1 else folders[0]}"


def _check_projection(path: Path) -> None:
    """Refuse a Shapefile whose CRS, in a text beside it, names a file.

    Raises:
        InputError: it does.
    """
    for text in (path.with_suffix(suffix) for suffix in (".prj", ".PRJ", ".qpj", ".QPJ")):
        if text.is_file():
            require_plain_crs(text.read_text(encoding="latin-1"), path)


def _check_geojson(path: Path) -> None:
    """Refuse GeoJSON whose CRS is behind an address: OGR would fetch it.

    Raises:
        InputError: the CRS is linked, or the file is no JSON.
    """
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _CRS_KEY.search(content) is None:
            return
        text = bytes(content)
    try:
        top = json.loads(text)
    except (ValueError, RecursionError):
        return  # OGR reports what is wrong with it
    given = [value for key, value in top.items() if key.lower() == "crs"] if isinstance(top, dict) else []
    require_plain_crs(json.dumps(given), path)
    for crs in given:
        named = crs.get("type") if isinstance(crs, dict) else None
        if crs is not None and str(named).lower() not in ("name", "epsg"):
            raise InputError(path, "has a CRS behind an address, which is not fetched", "Name its EPSG code instead")


def _read_gml(path: Path) -> bytes:
    """Return the content of a file of GML."""
    if path.stat().st_size > MAX_GML_BYTES:
        raise InputError(path, f"is larger than {MAX_GML_BYTES:,} bytes", "Convert it to a GeoPackage with ogr2ogr")
    return path.read_bytes()
