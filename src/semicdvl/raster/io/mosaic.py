"""Several files of one date -> one raster: a virtual mosaic that lives in memory and reads the files window by window.

Its grid is the first file's, as wide as all of them. A file on that grid is read as it is; one with another CRS,
resolution or origin is warped onto it (cubic) while it is read. Later files lie over earlier ones where they have
data: where neither a no-data tag, an alpha band nor a mask says otherwise. A black border without a tag counts as data
here, as it does in GDAL's own mosaics.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import rasterio
import rasterio.shutil
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid, find_covering_window, find_pixel_offset
from semicdvl.raster.io.inputs import ResolvedInput, is_local_name
from semicdvl.raster.io.open_dataset import describe_root_cause, open_dataset, read_grid

MAX_MOSAIC_PX = 2**31 - 1
GDAL_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "float32": "Float32",
    "float64": "Float64",
}
"""numpy's names of data types -> GDAL's."""


@dataclass(frozen=True)
class MosaicFile:
    """One file of a mosaic.

    Attributes:
        gdal_name: what GDAL opens: the file, or a view of it on the mosaic's grid.
        row, col: where its corner lies on the first file's grid; may be negative.
        height, width: its size there.
        fully_valid: whether every pixel has data.
    """

    gdal_name: str
    row: int
    col: int
    height: int
    width: int
    fully_valid: bool


def open_mosaic(resolved: ResolvedInput) -> tuple[Any, ExitStack]:
    """Open several files as one raster; return it and what must be closed after it (views held in memory).

    Raises:
        InputError: a file cannot be used, or does not fit the first (bands, data type, CRS or none).
    """
    with ExitStack() as views:
        with open_dataset(resolved.gdal_names[0], display_name=resolved.gdal_names[0]) as first:
            parts = []
            for file in resolved.gdal_names:
                with open_dataset(file, display_name=file) as source:
                    _check_compatible(file, source, resolved.gdal_names[0], first)
                    parts.append(_place_file(file, source, read_grid(first), views))
            text = _build_vrt(parts, first)
        try:
            mosaic = rasterio.open(text)
        except RasterioError as error:
            raise InputError(
                resolved.display_name, f"cannot be put together ({describe_root_cause(error)})", "Run `gdalbuildvrt`"
            ) from error
        return mosaic, views.pop_all()


def _check_compatible(file: str, source: Any, first_file: str, first: Any) -> None:
    """Refuse a file that cannot lie beside the first."""
    if source.crs is None or first.crs is None:
        plain = file if source.crs is None else first_file
        remedy = "Write its CRS into it (`gdal_edit.py -a_srs EPSG:...`); plain pictures cannot be put together"
        raise InputError(plain, "has no CRS, so it has no place in a mosaic", remedy)
    if first.dtypes[0] not in GDAL_TYPES:
        raise InputError(first_file, f"holds {first.dtypes[0]} numbers", "Convert it to bytes, integers or floats")
    mine, wanted = (_band_count_and_type(image) for image in (source, first))
    if mine != wanted:
        remedy = f"Bring all files of one date to the same bands and type (`gdal_translate -ot {wanted[1]} -b ...`)"
        problem = f"has {mine[0]} bands of {mine[1]}, but {first_file} has {wanted[0]} of {wanted[1]}"
        raise InputError(file, problem, remedy)


def _band_count_and_type(source: Any) -> tuple[int, str]:
    """Return the number of bands without alpha, and their type."""
    kind = str(source.dtypes[0])
    return sum(colour != ColorInterp.alpha for colour in source.colorinterp), GDAL_TYPES.get(kind, kind)


def _place_file(file: str, source: Any, grid: Grid, views: ExitStack) -> MosaicFile:
    """Return where a file lies on the mosaic's grid, through a warped view if it does not lie on its pixels."""
    flags = source.mask_flag_enums[0]
    at = find_pixel_offset(grid, read_grid(source))
    if at is not None:
        absolute = str(Path(file).absolute()) if is_local_name(file) else file
        return MosaicFile(absolute, *at, source.height, source.width, MaskFlags.all_valid in flags)
    there = find_covering_window(grid, read_grid(source))
    if there is None:
        raise InputError(file, "cannot be placed beside the first file", "Check its CRS, or leave it out")
    row, col, height, width = there
    view = WarpedVRT(
        source,
        crs=grid.crs,
        transform=grid.window(row, col, height, width).transform,
        height=height,
        width=width,
        resampling=Resampling.cubic,
        add_alpha=source.nodata is None and MaskFlags.alpha not in flags,
    )
    with view:
        held = views.enter_context(MemoryFile(ext=".vrt"))
        rasterio.shutil.copy(view, held.name, driver="VRT")
    return MosaicFile(held.name, row, col, height, width, False)


# ------------------------------------------------------------------------------------------------ the virtual file
def _build_vrt(parts: Sequence[MosaicFile], first: Any) -> str:
    """Return the mosaic as a GDAL virtual dataset, with a mask that says where any file has data."""
    top, left = min(part.row for part in parts), min(part.col for part in parts)
    height = max(part.row + part.height for part in parts) - top
    width = max(part.col + part.width for part in parts) - left
    if max(height, width) > MAX_MOSAIC_PX:
        raise InputError(
            parts[0].gdal_name, f"makes a mosaic of {width:,} x {height:,} px", "Leave out what lies far away"
        )
    grid = read_grid(first).window(top, left, height, width)
    root = ET.Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    ET.SubElement(root, "SRS").text = grid.crs.to_wkt() if grid.crs else ""
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(value)) for value in grid.transform.to_gdal())
    for number, colour in enumerate(first.colorinterp, start=1):
        if colour == ColorInterp.alpha:
            continue  # the mask tells what it would
        band = ET.SubElement(root, "VRTRasterBand", dataType=GDAL_TYPES[first.dtypes[0]], band=str(number))
        known = colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        ET.SubElement(band, "ColorInterp").text = colour.name.capitalize() if known else "Undefined"
        for part in parts:
            source = _add_source(band, part, str(number), (top, left), plain=part.fully_valid)
            if not part.fully_valid:
                ET.SubElement(source, "UseMaskBand").text = "true"
    mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
    for part in parts:
        source = _add_source(mask, part, "mask,1", (top, left), plain=part.fully_valid)
        if not part.fully_valid:
            ET.SubElement(source, "NODATA").text = "0"  # what one file lacks another may have
    return ET.tostring(root, encoding="unicode")


def _add_source(band: ET.Element, part: MosaicFile, number: str, corner: tuple[int, int], *, plain: bool) -> ET.Element:
    """Add one file to a band of the mosaic."""
    source = ET.SubElement(band, "SimpleSource" if plain else "ComplexSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0", shared="0").text = part.gdal_name
    ET.SubElement(source, "SourceBand").text = number
    size = {"xSize": str(part.width), "ySize": str(part.height)}
    ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ET.SubElement(source, "DstRect", {"xOff": str(part.col - corner[1]), "yOff": str(part.row - corner[0]), **size})
    return source
