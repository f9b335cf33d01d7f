"""Open a virtual copy of a raster: GDAL reads the pixels of the file, and the description is another one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from xml.etree import ElementTree as ET

import rasterio
import rasterio.shutil
from rasterio.io import MemoryFile

from semicdvl.raster.io.georeference_warnings import ignore_not_georeferenced


def open_virtual_copy(dataset: Any, views: ExitStack, *, describe: Callable[[ET.Element], None]) -> Any:
    """Open a virtual copy of a dataset in memory.

    Args:
        dataset: what is copied; it stays open as long as its copy.
        views: closes the dataset and the description of the copy.
        describe: changes the description, an XML tree as of a `.vrt` file.
    """
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        root = ET.fromstring(memory.read())
    describe(root)
    copy = views.enter_context(MemoryFile(ET.tostring(root), ext=".vrt"))
    views.callback(dataset.close)
    with ignore_not_georeferenced():
        opened = rasterio.open(copy.name)
        opened.transform  # noqa: B018  (reading it warns, once)
    return opened


def read_from(band: ET.Element, name: str, number: int, *, element: str = "SimpleSource") -> ET.Element:
    """Give a band of a description one source, a whole band of another raster; return it.

    Args:
        band: the element of the band.
        name: what GDAL opens.
        number: of the band there.
        element: "ComplexSource" where the values are to be changed on the way.
    """
    options = band.find("*/OpenOptions")
    for old in [child for child in band if child.tag.endswith("Source")]:
        band.remove(old)
    source = ET.SubElement(band, element)
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = name
    if options is not None and not name.startswith("/vsimem/"):
        source.append(options)
    ET.SubElement(source, "SourceBand").text = str(number)
    return source
