"""View a raster with the tags that its pixels call for: colours for a palette, no data, transparency.

Its values are grey levels of the whole scale: in files of 1 to 7 bits per value the largest number is white, and where
the photometric interpretation is MinIsWhite, as of scanned film, 0 is.
"""

from __future__ import annotations

import copy
import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from semicdvl.raster.file_access import is_vrt
from semicdvl.raster.io.inputs import is_local_name
from semicdvl.raster.io.open_dataset import count_vrt_bits
from semicdvl.raster.io.views.alpha_band import choose_alpha_band
from semicdvl.raster.io.views.sentinel_values import tag_sentinel_values
from semicdvl.raster.io.views.virtual_copy import open_virtual_copy, read_from

COLOURS = ("Red", "Green", "Blue")
KEPT_OF_A_BAND = ("SimpleSource", "ComplexSource")
GREY_TYPES = {"uint8": 8, "uint16": 16}
"""Data types of grey levels -> their bits; other types hold physical values."""
WHITE = (255, 255, 255, 255)
MAX_SAMPLE_PX = 1024


@dataclass(frozen=True)
class TaggedView:
    """A dataset whose bands are tagged as they are to be read.

    Attributes:
        dataset: the dataset, or a view of it with other tags.
        gdal_name: the name under which GDAL opens it.
        notes: what a reader of the result should know.
        never_measured: values that hide a pixel in whichever band they are, see `sentinel_values`.
    """

    dataset: Any
    gdal_name: str
    notes: tuple[str, ...]
    never_measured: tuple[float, ...]


def open_tagged_view(dataset: Any, gdal_name: str, views: ExitStack, *, alpha: str = "auto") -> TaggedView:
    """Return a dataset with the tags that its pixels call for; it is unchanged where its own are right.

    Args:
        dataset: the open dataset.
        gdal_name: the name under which it was opened.
        views: closes what a view needs.
        alpha: which band says where there is data: see `alpha_band.choose_alpha_band`.

    Raises:
        InputError: the alpha band does not exist.
    """
    coloured = _expand_palette(dataset, views)
    levels = spread_levels(coloured, gdal_name, views) if coloured is dataset else LevelView(coloured)
    sentinels = tag_sentinel_values(levels.dataset, views)
    name = gdal_name if sentinels.dataset is dataset else sentinels.dataset.name
    choice = choose_alpha_band(sentinels.dataset, name, views, alpha=alpha)
    notes = tuple(note for note in (levels.note, sentinels.note, choice.note) if note)
    return TaggedView(choice.dataset, choice.gdal_name, notes, sentinels.values)


# ------------------------------------------------------------------------------------------------ grey levels
@dataclass(frozen=True)
class LevelView:
    """A dataset whose values are grey levels of the whole scale.

    Attributes:
        dataset: the dataset, or a view of it.
        note: what a reader of the result should know; empty if nothing.
    """

    dataset: Any
    note: str = ""


def spread_levels(dataset: Any, gdal_name: str, views: ExitStack) -> LevelView:
    """Return a dataset in which 0 is black, and 255 is white if its values are of 8 bits or less.

    Values of 9 to 16 bits are only inverted where 0 is white: their stretch is measured. The numbers of a palette are
    left as they are, and so are those with scale and offset tags, which are physical values.

    Args:
        dataset: the open dataset.
        gdal_name: the name under which it was opened.
        views: closes what a view needs.
    """
    depth = GREY_TYPES.get(dataset.dtypes[0])
    tags = {dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS") for band in dataset.indexes}
    if depth is None or (tags == {None} and dataset.count > 2 and dataset.driver != "VRT"):
        return LevelView(dataset)
    bits = _count_bits(dataset, gdal_name, tags, depth)
    inverted = _is_zero_white(dataset)
    physical = set(dataset.scales) != {1.0} or set(dataset.offsets) != {0.0}
    if physical or dataset.colorinterp[0] == ColorInterp.palette or not (inverted or bits < 8):
        return LevelView(dataset)
    largest, white = 2**bits - 1, 255 if bits <= 8 else 2**bits - 1
    describe = partial(_spread_bands, dataset=dataset, largest=largest, white=white, inverted=inverted)
    note = (
        f"The image stores {bits} {'bit' if bits == 1 else 'bits'} per value, of which"
        f" {'0 is white and ' if inverted else '0 is black and '}{largest} is {'black' if inverted else 'white'}"
        f"{' (MinIsWhite)' if inverted else ''}: it is read so."
    )
    return LevelView(open_virtual_copy(dataset, views, describe=describe), note)


def _count_bits(dataset: Any, gdal_name: str, tags: set[str | None], depth: int) -> int:
    """Return how many bits the files of a dataset store per value.

    A virtual raster may have scaled the values of its files already.
    """
    (told,) = tags if len(tags) == 1 else (None,)
    bits = depth
    if told is not None and told.isdecimal():
        bits = int(told)
    elif dataset.driver == "VRT" and depth == 8 and is_local_name(gdal_name) and is_vrt(Path(gdal_name)):
        bits = count_vrt_bits(gdal_name)
    scaled = dataset.driver == "VRT" and bits < 8 and _read_largest(dataset) >= 2**bits
    return depth if scaled or not 0 < bits < depth else bits


def _read_largest(dataset: Any) -> int:
    """Return the largest value of a decimated read; one of 8 bits where it fails: whoever reads the pixels says so."""
    step = max(1.0, max(dataset.height, dataset.width) / MAX_SAMPLE_PX)
    size = max(1, round(dataset.height / step)), max(1, round(dataset.width / step))
    try:
        return int(dataset.read(out_shape=(dataset.count, *size)).max())  # nearest neighbour: no value is mixed
    except RasterioError:
        return 255


def _is_zero_white(dataset: Any) -> bool:
    """Tell whether 0 is white in a grey image: GDAL gives it a table of colours, and does not call it a palette."""
    grey = sum(role != ColorInterp.alpha for role in dataset.colorinterp) == 1
    if not grey or dataset.colorinterp[0] == ColorInterp.palette:
        return False
    try:
        return bool(dataset.colormap(1).get(0) == WHITE)
    except ValueError:  # rasterio says in this way that there is none
        return False


def _spread_bands(root: ET.Element, *, dataset: Any, largest: int, white: int, inverted: bool) -> None:
    """Scale the values of all bands from `largest` to `white`, and invert the first one if 0 is white in it."""
    root.attrib.pop("subClass", None)
    for tag in ("GDALWarpOptions", "BlockXSize", "BlockYSize"):
        for old in root.findall(tag):
            root.remove(old)
    for number, band in enumerate(root.findall("VRTRasterBand"), start=1):
        turn = inverted and number == 1
        ratio, offset = -white / largest if turn else white / largest, white if turn else 0
        band.attrib.pop("subClass", None)
        source = read_from(band, dataset.name, number, element="ComplexSource")
        ET.SubElement(source, "ScaleOffset").text = repr(offset)
        ET.SubElement(source, "ScaleRatio").text = repr(ratio)
        for tag in ("ColorTable", "Metadata"):
            for old in band.findall(tag):
                band.remove(old)
        for tagged in band.findall("NoDataValue"):
            value = float(tagged.text or "nan")
            if 0 <= value <= largest:
                tagged.text = repr(math.floor(offset + ratio * value + 0.5))
            else:  # no value is that
                band.remove(tagged)


# ------------------------------------------------------------------------------------------------ palettes
def _expand_palette(dataset: Any, views: ExitStack) -> Any:
    """Return a dataset of red, green and blue for one of a single band with a palette; any other one as it is.

    The numbers of a palette mean nothing until they are looked up.

    Where the palette has transparent colours, or a value is tagged as no data, the view has an alpha band.

    Args:
        dataset: the open dataset.
        views: closes what a view needs.
    """
    if dataset.count != 1 or dataset.colorinterp[0] != ColorInterp.palette:
        return dataset
    try:
        colours = dataset.colormap(1)
    except ValueError:  # tagged as a palette without one
        return dataset
    hidden = {index for index, colour in colours.items() if colour[3] == 0}
    if dataset.nodata is not None and float(dataset.nodata).is_integer():
        hidden.add(int(dataset.nodata))
    opacity = ",".join(f"{index}:{0 if index in hidden else 255}" for index in sorted(set(colours) | hidden))
    wanted = opacity if hidden and MaskFlags.per_dataset not in dataset.mask_flag_enums[0] else None
    return open_virtual_copy(dataset, views, describe=partial(_add_colours, opacity=wanted))


def _add_colours(root: ET.Element, *, opacity: str | None) -> None:
    """Replace the band of numbers by bands of colours, and one of opacity from a lookup table where one is given."""
    band = root.find("VRTRasterBand")
    assert band is not None, "a copy of one band has one"
    place = list(root).index(band)
    root.remove(band)
    sources = [source for name in KEPT_OF_A_BAND for source in band.findall(name)]
    lookups = [("ColorTableComponent", str(number)) for number in (1, 2, 3)] + ([("LUT", opacity)] if opacity else [])
    for number, (colour, lookup) in enumerate(zip((*COLOURS, "Alpha"), lookups, strict=False), start=1):
        added = ET.Element("VRTRasterBand", dataType="Byte", band=str(number))
        ET.SubElement(added, "ColorInterp").text = colour
        for source in sources:
            looked_up = copy.deepcopy(source)
            looked_up.tag = "ComplexSource"
            for old in [child for child in looked_up if child.tag in ("NODATA", "ColorTableComponent", "LUT")]:
                looked_up.remove(old)
            ET.SubElement(looked_up, lookup[0]).text = lookup[1]
            added.append(looked_up)
        root.insert(place + number - 1, added)
