"""View a raster with the tags that its pixels call for: colours for a palette, no data, transparency."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree import ElementTree as ET

from rasterio.enums import ColorInterp, MaskFlags

from semicdvl.raster.io.open_dataset import stores_one_bit
from semicdvl.raster.io.views.alpha_band import choose_alpha_band
from semicdvl.raster.io.views.sentinel_values import tag_sentinel_values
from semicdvl.raster.io.views.virtual_copy import open_virtual_copy

COLOURS = ("Red", "Green", "Blue")
KEPT_OF_A_BAND = ("SimpleSource", "ComplexSource")


@dataclass(frozen=True)
class TaggedView:
    """A dataset whose bands are tagged as they are to be read.

    Attributes:
        dataset: the dataset, or a view of it with other tags.
        gdal_name: the name under which GDAL opens it.
        notes: what a reader of the result should know.
        never_measured: values that hide a pixel in whichever band they are, see `sentinel_values`.
        one_bit: whether the files store one bit per value, and no palette gives colours to 0 and 1.
    """

    dataset: Any
    gdal_name: str
    notes: tuple[str, ...]
    never_measured: tuple[float, ...]
    one_bit: bool


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
    sentinels = tag_sentinel_values(coloured, views)
    name = gdal_name if sentinels.dataset is dataset else sentinels.dataset.name
    choice = choose_alpha_band(sentinels.dataset, name, views, alpha=alpha)
    notes = tuple(note for note in (sentinels.note, choice.note) if note)
    one_bit = coloured is dataset and stores_one_bit(dataset, gdal_name)
    return TaggedView(choice.dataset, choice.gdal_name, notes, sentinels.values, one_bit)


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
