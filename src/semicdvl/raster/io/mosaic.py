"""Open several files of one date as one raster: a virtual mosaic in memory that reads the files window by window.

The mosaic has the grid of the first file, extended to cover all files. A file on that grid is read unchanged; one with
another CRS, resolution or origin is resampled onto it (cubic) while it is read. Later files lie over earlier ones where
they have data, as declared by a no-data tag, an alpha band or a mask. A black border without a tag counts as data here,
as in GDAL's own mosaics.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
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
from semicdvl.raster.io.open_dataset import (
    describe_root_cause,
    list_files,
    note_unused_overviews,
    open_dataset,
    read_grid,
)
from semicdvl.raster.io.views.alpha_band import ALPHA_COUNTS, needs_alpha
from semicdvl.raster.io.views.sentinel_values import choose_warp_options
from semicdvl.raster.io.views.tagged_view import open_tagged_view
from semicdvl.raster.io.views.upright_view import require_north_up
from semicdvl.raster.overview_files import NO_OVERVIEWS
from semicdvl.raster.stored_values import COLOURS, BandScaling, select_bands

MAX_MOSAIC_PX = 2**31 - 1
"""GDAL's limit for the side of a raster."""
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
"""NumPy's names of data types -> GDAL's."""
RGB_NAMES = (("red", "b04", "b4"), ("green", "b03", "b3"), ("blue", "b02", "b2"))
"""Words by which files of red, green and blue are known: plain names, Sentinel-2 and Landsat 8/9."""


@dataclass(frozen=True)
class MosaicFile:
    """One file of a mosaic.

    Attributes:
        gdal_name: what GDAL opens: the file, or a view of it on the mosaic's grid.
        row, col: position of its top left corner on the first file's grid; may be negative.
        height, width: its size there.
        fully_valid: whether every pixel has data.
        has_overviews: False where those beside it are not to be used (`raster.overview_files`).
    """

    gdal_name: str
    row: int
    col: int
    height: int
    width: int
    fully_valid: bool
    has_overviews: bool = True


@dataclass(frozen=True)
class OpenedImage:
    """One file, or several as one raster, open.

    Attributes:
        dataset: the open dataset.
        views: closes what must be closed after it: views held in memory, and what they show.
        files: the local files of all parts.
        notes: how they were understood.
        never_measured: values that hide a pixel in whichever band they are (`views.sentinel_values`).
    """

    dataset: Any
    views: ExitStack
    files: tuple[Path, ...]
    notes: tuple[str, ...]
    never_measured: tuple[float, ...]


def open_mosaic(resolved: ResolvedInput, *, alpha: str = "auto") -> OpenedImage:
    """Open several files as one raster.

    Args:
        resolved: the files.
        alpha: which band says where there is data: see `alpha_band.choose_alpha_band`.

    Raises:
        InputError: a file cannot be used, or does not fit the first one (number and type of bands, CRS).
    """
    first_name = resolved.gdal_names[0]
    paths: list[Path] = []
    notes: dict[str, None] = {}
    never_measured: dict[float, None] = {}
    with ExitStack() as views:
        outside = resolved.allow_outside
        with open_dataset(first_name, display_name=first_name, allow_outside=outside) as opened:
            first = open_tagged_view(opened, first_name, views, alpha=alpha).dataset
            parts = []
            for name in resolved.gdal_names:
                with open_dataset(name, display_name=name, allow_outside=outside) as dataset:
                    paths += list_files(dataset, name)
                    require_north_up(dataset, name)
                    view = open_tagged_view(dataset, name, views, alpha=alpha)
                    notes |= dict.fromkeys(view.notes)
                    never_measured |= dict.fromkeys(view.never_measured)
                    _check_compatible(name, view.dataset, first_name, first)
                    unused = note_unused_overviews(name)
                    notes |= dict.fromkeys(unused)
                    part = _place_file(view.gdal_name, view.dataset, read_grid(first), views)
                    parts.append(replace(part, has_overviews=not unused or part.gdal_name.startswith("/vsimem")))
            _check_not_one_band_each(resolved, parts, first)
            vrt = _build_vrt(parts, first)
        try:
            mosaic = rasterio.open(vrt)
        except RasterioError as error:
            problem = f"The files cannot be combined into a mosaic ({describe_root_cause(error)})"
            raise InputError(resolved.display_name, problem, "Build it with `gdalbuildvrt` and give that") from error
        files = tuple(dict.fromkeys(paths))
        return OpenedImage(mosaic, views.pop_all(), files, tuple(notes), tuple(never_measured))


def _check_compatible(name: str, dataset: Any, first_name: str, first: Any) -> None:
    """Reject a file that cannot be in a mosaic with the first one."""
    if dataset.crs is None or first.crs is None:
        plain = name if dataset.crs is None else first_name
        remedy = "Assign its CRS (`gdal_edit.py -a_srs EPSG:...`); images without one cannot be combined"
        raise InputError(plain, "The image has no CRS, so it cannot be placed in a mosaic", remedy)
    if first.dtypes[0] not in GDAL_TYPES:
        remedy = "Convert it to an integer or floating-point type with `gdal_translate -ot`"
        raise InputError(first_name, f"The data type {first.dtypes[0]} is not supported in a mosaic", remedy)
    (bands, dtype), (first_bands, first_dtype) = (_count_bands(image) for image in (dataset, first))
    if (bands, dtype) != (first_bands, first_dtype):
        problem = f"The image has {bands} bands of {dtype}, but {first_name} has {first_bands} of {first_dtype}"
        remedy = (
            f"Convert all files of the mosaic to the same bands and type (`gdal_translate -ot {first_dtype} -b ...`)"
        )
        raise InputError(name, problem, remedy)
    if bands >= len(COLOURS):
        _check_same_colours(name, dataset, first_name, first)
    scalings = [BandScaling.read(image, image.indexes[:bands]) for image in (dataset, first)]
    if not scalings[0].equals(scalings[1]):
        problem = f"The image has other scale and offset tags than {first_name}, so equal numbers mean different things"
        remedy = "Write physical values first (`gdal_translate -unscale -ot Float32 IN OUT`), for all files"
        raise InputError(name, problem, remedy)


def _check_same_colours(name: str, dataset: Any, first_name: str, first: Any) -> None:
    """Reject a file of a mosaic whose red, green and blue are other bands than those of the first one."""
    colours, first_colours = select_bands(dataset, display_name=name), select_bands(first, display_name=first_name)
    if colours.numbers == first_colours.numbers:
        return
    numbers, first_numbers = (",".join(map(str, one.numbers)) for one in (colours, first_colours))
    problem = f"Red, green and blue are the bands {numbers} of the image, but the bands {first_numbers} of {first_name}"
    remedy = "Write all files of the mosaic in one order of bands (`gdal_translate -b 3 -b 2 -b 1 IN OUT`)"
    raise InputError(name, problem, remedy)


def _check_not_one_band_each(resolved: ResolvedInput, parts: Sequence[MosaicFile], first: Any) -> None:
    """Reject files of one band that all lie on the same ground: they are the bands of one image, not its tiles."""
    places = {(part.row, part.col, part.height, part.width) for part in parts}
    if _count_bands(first)[0] != 1 or len(parts) < 2 or len(places) > 1:
        return
    names = sorted(resolved.gdal_names, key=_rank_band_name)
    problem = f"The {len(parts)} files have one band each and show the same ground: they are bands, not tiles"
    folder = Path(names[0]).parent.name
    stack = f"{folder}-bands.vrt" if folder else "bands.vrt"  # one per date: both need one
    command = f"gdalbuildvrt -separate -resolution highest {shlex.join([stack, *names])}"
    remedy = f"Stack them, red, green and blue first: `{command}`, and give {stack}"
    raise InputError(resolved.display_name, problem, remedy)


def _rank_band_name(gdal_name: str) -> tuple[int, str]:
    """Return where a band belongs by its file's name: red, green, blue, then the others by name."""
    words = re.split(r"[^a-z0-9]+", Path(gdal_name).stem.lower())
    rank = next((at for at, known in enumerate(RGB_NAMES) if any(word in known for word in words)), len(RGB_NAMES))
    return rank, gdal_name


def _count_bands(dataset: Any) -> tuple[int, str]:
    """Return the number of bands without alpha, and GDAL's name of their data type."""
    dtype = str(dataset.dtypes[0])
    return sum(colour != ColorInterp.alpha for colour in dataset.colorinterp), GDAL_TYPES.get(dtype, dtype)


def _place_file(name: str, dataset: Any, grid: Grid, views: ExitStack) -> MosaicFile:
    """Return where a file lies on the mosaic's grid, through a resampled view if its pixels do not coincide with it."""
    offset = find_pixel_offset(grid, read_grid(dataset))
    if offset is not None:
        fully_valid = MaskFlags.all_valid in dataset.mask_flag_enums[0]
        absolute = str(Path(name).absolute()) if is_local_name(name) else name
        return MosaicFile(absolute, *offset, dataset.height, dataset.width, fully_valid)
    window = find_covering_window(grid, read_grid(dataset))
    if window is None:
        problem = "The image cannot be projected into the CRS of the first file"
        raise InputError(name, problem, "Check that its CRS is right, or leave it out")
    row, col, height, width = window
    view = WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.window(row, col, height, width).transform,
        height=height,
        width=width,
        resampling=Resampling.cubic,
        add_alpha=needs_alpha(dataset),
        **choose_warp_options(dataset),
    )
    with view:
        memory_file = views.enter_context(MemoryFile(ext=".vrt"))
        rasterio.shutil.copy(view, memory_file.name, driver="VRT")
        warped = MosaicFile(memory_file.name, row, col, height, width, False)
        return replace(warped, gdal_name=_mask_by_alpha(memory_file.name, view, views))


def _mask_by_alpha(name: str, view: Any, views: ExitStack) -> str:
    """Return the name of a raster in memory whose mask is the alpha band of another, where GDAL doesn't see to that.

    It does so for one and three other bands only. The ground that an earlier file shows would be hidden by the empty
    corners of a warped file of four bands.
    """
    if ColorInterp.alpha not in view.colorinterp or view.count in ALPHA_COUNTS:
        return name
    part, alpha = MosaicFile(name, 0, 0, view.height, view.width, True), view.colorinterp.index(ColorInterp.alpha) + 1
    root = _start_vrt(read_grid(view))
    for number, colour in enumerate(view.colorinterp, start=1):
        if number != alpha:
            _add_band(root, number, colour, [part], dtype=GDAL_TYPES[view.dtypes[0]], corner=(0, 0))
    mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
    _add_source(mask, part, str(alpha), corner=(0, 0))
    return str(views.enter_context(MemoryFile(ET.tostring(root), ext=".vrt")).name)


# ------------------------------------------------------------------------------------------------ virtual dataset
def _build_vrt(parts: Sequence[MosaicFile], first: Any) -> str:
    """Return the mosaic as XML of a GDAL virtual dataset, with a mask of where any file has data."""
    top, left = min(part.row for part in parts), min(part.col for part in parts)
    height = max(part.row + part.height for part in parts) - top
    width = max(part.col + part.width for part in parts) - left
    if max(height, width) > MAX_MOSAIC_PX:
        problem = f"The mosaic would have {width:,} x {height:,} px"
        raise InputError(parts[0].gdal_name, problem, "Leave out the files that lie far away")
    grid = read_grid(first).window(top, left, height, width)
    root = _start_vrt(grid)
    for number, colour in enumerate(first.colorinterp, start=1):
        if colour != ColorInterp.alpha:  # the mask band takes its place
            band = _add_band(root, number, colour, parts, dtype=GDAL_TYPES[first.dtypes[0]], corner=(top, left))
            ET.SubElement(band, "Description").text = first.descriptions[number - 1] or ""
            ET.SubElement(band, "Scale").text = repr(float(first.scales[number - 1]))
            ET.SubElement(band, "Offset").text = repr(float(first.offsets[number - 1]))
    mask = ET.SubElement(ET.SubElement(root, "MaskBand"), "VRTRasterBand", dataType="Byte")
    for part in parts:
        source = _add_source(mask, part, "mask,1", corner=(top, left))
        if not part.fully_valid:
            ET.SubElement(source, "NODATA").text = "0"  # where one file has no data, another one may have some
    return ET.tostring(root, encoding="unicode")


def _start_vrt(grid: Grid) -> ET.Element:
    """Return a virtual dataset without bands."""
    root = ET.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    ET.SubElement(root, "SRS").text = grid.crs.to_wkt() if grid.crs else ""
    ET.SubElement(root, "GeoTransform").text = ", ".join(repr(float(value)) for value in grid.transform.to_gdal())
    return root


def _add_band(
    root: ET.Element,
    number: int,
    colour: ColorInterp,
    parts: Sequence[MosaicFile],
    *,
    dtype: str,
    corner: tuple[int, int],
) -> ET.Element:
    """Return an added band of the mosaic, made of the same band of every file."""
    band = ET.SubElement(root, "VRTRasterBand", dataType=dtype, band=str(number))
    known = colour in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    ET.SubElement(band, "ColorInterp").text = colour.name.capitalize() if known else "Undefined"
    for part in parts:
        source = _add_source(band, part, str(number), corner=corner)
        if not part.fully_valid:
            ET.SubElement(source, "UseMaskBand").text = "true"
    return band


def _add_source(band: ET.Element, part: MosaicFile, source_band: str, *, corner: tuple[int, int]) -> ET.Element:
    """Add one file to a band of the mosaic, whose top left corner has the given row and column."""
    source = ET.SubElement(band, "SimpleSource" if part.fully_valid else "ComplexSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0", shared="0").text = part.gdal_name
    if not part.has_overviews:
        options = ET.SubElement(source, "OpenOptions")
        for key, value in NO_OVERVIEWS.items():
            ET.SubElement(options, "OOI", key=key).text = value
    ET.SubElement(source, "SourceBand").text = source_band
    size = {"xSize": str(part.width), "ySize": str(part.height)}
    ET.SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
    ET.SubElement(source, "DstRect", {"xOff": str(part.col - corner[1]), "yOff": str(part.row - corner[0]), **size})
    return source
