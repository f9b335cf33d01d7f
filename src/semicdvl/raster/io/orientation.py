"""Turn photographs and scans upright, as their orientation tag says and every viewer shows them.

GDAL and Pillow give the pixels as the sensor stored them. A label that was drawn in a viewer then lies on other pixels.
The tag is one of EXIF, or of the TIFF itself. Where a file is georeferenced, its georeference speaks of the pixels as
they are stored, as GDAL and every GIS read them: such a file is not turned.
"""

from __future__ import annotations

import struct
import weakref
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import rasterio.shutil
from affine import Affine
from PIL import Image
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from semicdvl.raster.io.views.virtual_copy import open_virtual_copy, read_from

ORIENTATION_TAG, _SHORT = 274, 3
MAX_TAGS = 4096
"""So many tags of a TIFF are looked at."""
PHOTO_DRIVERS = frozenset({"JPEG", "PNG", "WEBP"})
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored image upright."""
_PLACEHOLDER_CRS, _PLACEHOLDER_GRID = CRS.from_epsg(3857), Affine.scale(1, -1)
"""GDAL needs both to reorder pixels; the turned image has neither."""


def find_orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation (1 to 8) from the header of an open picture, without decoding it."""
    data = picture.info.get("exif")
    if not data:
        return 1
    exif = Image.Exif()
    try:
        exif.load(data)
        orientation = exif.get(ORIENTATION_TAG, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, EOFError, OSError):  # a damaged block says nothing
        return 1
    return orientation if isinstance(orientation, int) and orientation in _TURNS else 1


def find_upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return (height, width) of a picture as it is shown."""
    swapped = find_orientation(picture) >= 5
    return (picture.width, picture.height) if swapped else (picture.height, picture.width)


def turn_upright(picture: Image.Image) -> Image.Image:
    """Return a picture as it is shown; the same one where nothing is to be turned."""
    turn = _TURNS.get(find_orientation(picture))
    return picture if turn is None else picture.transpose(turn)


def open_as_shown(dataset: Any, path: Path) -> Any:
    """Return an open dataset with its pixels as viewers show them; the same one where nothing is to be turned.

    A turned one is a view of the file that is read window by window, and keeps its tags, mask and palette.

    Args:
        dataset: an open file of one raster.
        path: the file.
    """
    located = dataset.crs is not None or dataset.gcps[0] or dataset.rpcs is not None
    if located or not dataset.transform.is_identity:
        return dataset
    orientation = 1
    if dataset.driver == "GTiff":
        orientation = read_tiff_orientation(path)
    elif dataset.driver in PHOTO_DRIVERS:
        orientation = _read_photo_orientation(path)
    return dataset if orientation == 1 else _open_turned(dataset, orientation)


def read_tiff_orientation(path: Path) -> int:
    """Return the orientation tag (1 to 8) of the first image of a TIFF; 1 where there is none.

    Pillow knows few of the data types that a TIFF may have.
    """
    with suppress(OSError, struct.error, ValueError, OverflowError), path.open("rb") as handle:
        head = handle.read(16)
        order, is_big = ">" if head[:2] == b"MM" else "<", head[2:4] in (b"+\0", b"\0+")
        count_type, offset_type, entry_bytes, value_at = ("Q", "Q", 20, 12) if is_big else ("H", "I", 12, 8)
        (offset,) = struct.unpack_from(order + offset_type, head, 8 if is_big else 4)
        handle.seek(offset)
        (count,) = struct.unpack(order + count_type, handle.read(struct.calcsize(count_type)))
        for _ in range(min(count, MAX_TAGS)):
            entry = handle.read(entry_bytes)
            tag, kind = struct.unpack_from(order + "HH", entry)
            if tag == ORIENTATION_TAG and kind == _SHORT:
                (orientation,) = struct.unpack_from(order + "H", entry, value_at)
                return orientation if orientation in _TURNS else 1
    return 1


def _read_photo_orientation(path: Path) -> int:
    """Return the EXIF orientation of a photograph on disk; 1 where there is none."""
    try:
        with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as picture:
            return find_orientation(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return 1


# ------------------------------------------------------------------------------------------------ turned views
def _open_turned(dataset: Any, orientation: int) -> Any:
    """Return a view of a dataset with its pixels turned upright; closes the dataset."""
    with ExitStack() as views:
        size = (dataset.width, dataset.height) if orientation < 5 else (dataset.height, dataset.width)
        pixels = _turn_bands(dataset, orientation, views, describe=_keep_pixels)
        flags = dataset.mask_flag_enums[0]
        masked = MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags
        mask = _turn_bands(dataset, orientation, views, describe=_keep_mask) if masked else ""
        describe = partial(_read_turned, pixels=pixels, mask=mask, size=size, pages=dataset.tags(ns="SUBDATASETS"))
        turned = open_virtual_copy(dataset, views, describe=describe)
        dataset.close()
        weakref.finalize(turned, views.pop_all().close)  # what is held in memory lives as long as what reads it
    return turned


def _turn_bands(dataset: Any, orientation: int, views: ExitStack, *, describe: Any) -> str:
    """Return the name of a raster in memory: bands of a dataset, turned. Each value is copied as it is."""
    height, width = dataset.height, dataset.width
    turns = {
        2: (-1, 0, width, 0, 1, 0),
        3: (-1, 0, width, 0, -1, height),
        4: (1, 0, 0, 0, -1, height),
        5: (0, 1, 0, 1, 0, 0),
        6: (0, -1, height, 1, 0, 0),
        7: (0, -1, height, -1, 0, width),
        8: (0, 1, 0, -1, 0, width),
    }  # (col, row) of the stored pixels -> (col, row) of the shown ones
    stored = open_virtual_copy(dataset, views, describe=describe)
    turned = WarpedVRT(
        stored,
        src_crs=_PLACEHOLDER_CRS,
        src_transform=_PLACEHOLDER_GRID @ Affine(*turns[orientation]),
        crs=_PLACEHOLDER_CRS,
        transform=_PLACEHOLDER_GRID,
        height=height if orientation < 5 else width,
        width=width if orientation < 5 else height,
        resampling=Resampling.nearest,
    )
    with stored, turned:
        memory = views.enter_context(MemoryFile(ext=".vrt"))
        rasterio.shutil.copy(turned, memory.name, driver="VRT")
    return str(memory.name)


def _keep_pixels(root: ET.Element) -> None:
    """Leave the values of all bands and nothing that says which of them count."""
    for parent in (root, *root.findall("VRTRasterBand")):
        for tag in ("MaskBand", "NoDataValue", "ColorInterp"):
            for old in parent.findall(tag):
                parent.remove(old)


def _keep_mask(root: ET.Element) -> None:
    """Leave the mask as the only band."""
    (mask,) = root.findall("MaskBand/VRTRasterBand")
    for old in (*root.findall("VRTRasterBand"), *root.findall("MaskBand")):
        root.remove(old)
    mask.set("band", "1")
    root.append(mask)


def _read_turned(root: ET.Element, *, pixels: str, mask: str, size: tuple[int, int], pages: dict[str, str]) -> None:
    """Make the description of a file that of its turned pixels, of (width, height)."""
    root.attrib |= {"rasterXSize": str(size[0]), "rasterYSize": str(size[1])}
    for number, band in enumerate(root.findall("VRTRasterBand"), start=1):
        read_from(band, pixels, number)
    for band in root.findall("MaskBand/VRTRasterBand"):
        read_from(band, mask, 1)
    further = ET.SubElement(root, "Metadata", domain="SUBDATASETS")
    for key, value in pages.items():
        ET.SubElement(further, "MDI", key=key).text = value
