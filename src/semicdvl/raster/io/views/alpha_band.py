"""Decide which band of a raster says where there is data.

GDAL tags the fourth of four byte bands as alpha, whatever it holds.
A near-infrared band that is tagged so would make dark water transparent, and its changes would be lost. Other programs
write transparency without a tag, and what it hides would be ground of one colour.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.io.views.virtual_copy import open_virtual_copy

ALPHA_CHOICES = ("auto", "none")
"""How the alpha band is chosen; the number of a band is possible, too."""
ALPHA_COUNTS = (2, 4)
"""Numbers of bands of which GDAL takes the last, if it is tagged as alpha, for the mask of the others."""
MAX_ALPHA_SAMPLE_PX = 512
MAX_PARTIAL_FRAC = 0.1
"""An alpha band is 0 or full nearly everywhere; with more pixels in between than this it is a band of the sensor."""


@dataclass(frozen=True)
class AlphaChoice:
    """A dataset whose bands are tagged as they are to be read.

    Attributes:
        dataset: the dataset, or a view of it with other tags.
        gdal_name: the name under which GDAL opens it.
        note: what a reader of the result should know; empty if nothing.
    """

    dataset: Any
    gdal_name: str
    note: str = ""


def check_alpha_choice(alpha: str) -> None:
    """Refuse what is neither one of `ALPHA_CHOICES` nor the number of a band.

    Raises:
        ConfigError: it is not.
    """
    if alpha not in ALPHA_CHOICES and not (alpha.isdecimal() and int(alpha) >= 1):
        raise ConfigError(f"The alpha band {alpha!r} is unknown. Give auto, none or the number of a band.")


def choose_alpha_band(dataset: Any, gdal_name: str, views: ExitStack, *, alpha: str = "auto") -> AlphaChoice:
    """Return a dataset whose alpha band is the right one, through a view in memory where the tags of the file are not.

    Args:
        dataset: the open dataset.
        gdal_name: the name under which it was opened.
        views: closes what a view needs.
        alpha: "auto": the band tagged as alpha, unless it holds many values; "none": no band; or the number of a band.

    Raises:
        InputError: the band does not exist.
    """
    colours = dataset.colorinterp
    tagged = colours.index(ColorInterp.alpha) + 1 if ColorInterp.alpha in colours else None
    if alpha == "auto":
        if tagged is None and _is_untagged_alpha(dataset):
            note = (
                f"Band {dataset.count} is not tagged and hides ground of one colour, as transparency does: it is read"
                " as such. If it is a band of the sensor, give --alpha none."
            )
            view = _retag(dataset, dataset.count, views)
            return AlphaChoice(view, view.name, note)
        if tagged is None:
            return AlphaChoice(dataset, gdal_name)
        if not holds_many_values(dataset, tagged):
            return _use_as_mask(dataset, gdal_name, tagged, views)
        view = _retag(dataset, None, views)
        note = (
            f"Band {tagged} is tagged as alpha (transparency) but holds many values, as a band of the sensor does: it "
            "is read as a band, and no pixel counts as no data because of it. If it is transparency, give "
            f"--alpha {tagged}."
        )
        return AlphaChoice(view, view.name, note)
    wanted = None if alpha == "none" else int(alpha)
    if wanted is not None and wanted > dataset.count:
        raise InputError(gdal_name, f"The image has no band {wanted}, only {dataset.count}", "Correct --alpha")
    if wanted is not None:
        return _use_as_mask(dataset, gdal_name, wanted, views)
    if tagged is None:
        return AlphaChoice(dataset, gdal_name)
    view = _retag(dataset, None, views)
    return AlphaChoice(view, view.name)


def needs_alpha(dataset: Any) -> bool:
    """Tell whether a warped view of a dataset needs an alpha band: it has none itself, and no no-data value.

    Without one, ground outside of the file would read as valid black.
    """
    return dataset.nodata is None and ColorInterp.alpha not in dataset.colorinterp


def _use_as_mask(dataset: Any, gdal_name: str, alpha: int, views: ExitStack) -> AlphaChoice:
    """Return a dataset that has data where the given band is not 0.

    GDAL takes a band for the mask of the others only if it is the last of two or of four. Elsewhere, as after five
    bands of a drone, the view has a mask of its own, and the band loses its tag: else nothing would be hidden, and
    what is resampled could get no mask.
    """
    if dataset.count in ALPHA_COUNTS and alpha == dataset.count:
        if dataset.colorinterp[alpha - 1] == ColorInterp.alpha:
            return AlphaChoice(dataset, gdal_name)
        view = _retag(dataset, alpha, views)
    else:
        view = _retag(dataset, None, views, mask=alpha)
    return AlphaChoice(view, view.name)


def _is_untagged_alpha(dataset: Any) -> bool:
    """Tell whether a fourth band without a tag is 0 where red, green and blue are of one colour, and full elsewhere."""
    last = dataset.colorinterp[-1]
    masked = dataset.nodata is not None or MaskFlags.all_valid not in dataset.mask_flag_enums[0]
    if dataset.count != 4 or last not in (ColorInterp.undefined, ColorInterp.gray) or masked:
        return False
    bands_CHW = _read_sample(dataset, [1, 2, 3, 4])
    if bands_CHW is None or bands_CHW.dtype.kind != "u":
        return False
    hidden_HW = bands_CHW[3] == 0
    if not hidden_HW.any() or not (hidden_HW | (bands_CHW[3] == np.iinfo(bands_CHW.dtype).max)).all():
        return False
    below_CN = bands_CHW[:3, hidden_HW]
    return bool((below_CN == below_CN[:, :1]).all() and not hidden_HW.all())


def _read_sample(dataset: Any, bands: list[int]) -> NDArray[Any] | None:
    """Return a decimated read of bands CHW; None where it fails: whoever reads the pixels reports it."""
    step = max(1.0, max(dataset.height, dataset.width) / MAX_ALPHA_SAMPLE_PX)
    size = max(1, round(dataset.height / step)), max(1, round(dataset.width / step))
    try:
        found: NDArray[Any] = dataset.read(bands, out_shape=(len(bands), *size))  # nearest: no value is mixed
    except RasterioError:
        return None
    return found


def holds_many_values(dataset: Any, band: int) -> bool:
    """Tell whether more than `MAX_PARTIAL_FRAC` of a band's pixels are neither 0 nor its largest value."""
    values_1HW = _read_sample(dataset, [band])
    return values_1HW is not None and are_many_values(values_1HW[0])


def are_many_values(values_HW: NDArray[Any]) -> bool:
    """Tell whether more than `MAX_PARTIAL_FRAC` of an alpha band's values are neither 0 nor the largest."""
    full = np.iinfo(values_HW.dtype).max if values_HW.dtype.kind in "iu" else 1
    partial_HW = (values_HW != 0) & (values_HW != full) & (values_HW != values_HW.max())
    return bool(partial_HW.mean() > MAX_PARTIAL_FRAC)


def _retag(dataset: Any, alpha: int | None, views: ExitStack, *, mask: int | None = None) -> Any:
    """Open a virtual copy of a dataset in which only the given band is tagged as alpha.

    Args:
        dataset: the dataset.
        alpha: the band that is tagged; None: none is.
        views: closes what the copy needs.
        mask: a band whose pixels become the mask of the copy, in place of a mask and of the no-data tags of the file.
    """

    def describe(root: ET.Element) -> None:
        if mask is not None:
            _set_mask(root, mask)
        for number, band in enumerate(root.findall("VRTRasterBand"), start=1):
            tag = band.find("ColorInterp")
            tag = ET.SubElement(band, "ColorInterp") if tag is None else tag
            if number == alpha:
                tag.text = "Alpha"
            elif tag.text == "Alpha":
                tag.text = "Undefined"

    return open_virtual_copy(dataset, views, describe=describe)


def _set_mask(root: ET.Element, mask: int) -> None:
    """Give a virtual raster a mask that is the pixels of one of its bands."""
    for parent in (root, *root.findall("VRTRasterBand")):
        for tag in ("MaskBand", "NoDataValue"):
            for old in parent.findall(tag):
                parent.remove(old)
    pixels = copy.deepcopy(root.findall("VRTRasterBand")[mask - 1])
    pixels.attrib.pop("band", None)
    ET.SubElement(root, "MaskBand").append(pixels)
