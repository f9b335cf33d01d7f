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
