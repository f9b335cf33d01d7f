"""Find values that can only mean no data although no tag says so, such as -9999 in a float raster.

Rasters lose their no-data tag on the way through tools and formats, and what was not measured keeps its number: -9999,
the end of the data type, the fill value of NetCDF. Read as data it is black ground that "changed" wherever the other
date has data, and resampling mixes it with its neighbours. 0 is dark ground, too, and 255 is white ground: borders of
these are looked for as collars instead. The largest number of 16 bits and more is saturated ground where others come
near to it, and no data where none does.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError

from semicdvl.raster.io.views.virtual_copy import open_virtual_copy

USUAL_SENTINELS = (-999.0, -9999.0, -99999.0, -28672.0, -32767.0, -32768.0)
"""Values below which no sensor measures, as programs and archives write them."""
MAX_MEASURED = 1e30
"""No sensor measures more: the ends of the float types and the fill value of NetCDF (9.97e36) lie beyond."""
MIN_HEAP_FRAC = 0.0005
"""Any other lowest value is a sentinel only if this share of the pixels has it in all bands."""
MIN_TIMES_MIXED = 4
"""A usual sentinel is at least so many times as frequent as the values between it and its half."""
MAX_SAMPLE_PX, MAX_SAMPLE_BANDS = 1024, 4


@dataclass(frozen=True)
class SentinelView:
    """A dataset whose no-data values are known.

    Attributes:
        dataset: the dataset, or a view of it whose no-data tag is the value that was found.
        values: values that no sensor measures: a pixel that has one of them in any band has no data.
        note: what a reader of the result should know; empty if nothing.
    """

    dataset: Any
    values: tuple[float, ...] = ()
    note: str = ""


def tag_sentinel_values(dataset: Any, views: ExitStack) -> SentinelView:
    """Return a dataset whose values that can only mean no data are tagged so.

    Args:
        dataset: the open dataset.
        views: closes what a view needs.
    """
    dtype = np.dtype(dataset.dtypes[0])
    if dtype.kind == "u":
        return _tag_largest_number(dataset, views) if dtype.itemsize > 1 else SentinelView(dataset)
    if dtype.kind not in "if":
        return SentinelView(dataset)
    tag = dataset.nodata
    tagged = (float(tag),) if tag is not None and is_never_measured(float(tag)) else ()
    found = tuple(value for value in _find_sentinels(dataset) if value != tag)
    if not found:
        return SentinelView(dataset, tagged)
    if tag is None:
        dataset = open_virtual_copy(dataset, views, describe=partial(_tag_bands, value=found[0]))
    numbers = " and ".join(f"{value:.6g}" for value in found)
    note = f"Pixels of {numbers} have no no-data tag; no sensor measures that, so they are read as no data."
    return SentinelView(dataset, (*tagged, *found), note)


def _tag_largest_number(dataset: Any, views: ExitStack) -> SentinelView:
    """Return a dataset of whole numbers whose largest one is tagged as no data, if no other comes near to it."""
    if dataset.nodata is not None or MaskFlags.all_valid not in dataset.mask_flag_enums[0]:
        return SentinelView(dataset)
    largest, data_CHW = np.iinfo(dataset.dtypes[0]).max, _read_sample(dataset)
    full_HW = (data_CHW == largest).all(axis=0)
    between_HW = ((data_CHW > largest // 2) & (data_CHW < largest)).any(axis=0)
    if not full_HW.mean() >= MIN_HEAP_FRAC or between_HW.sum() * MIN_TIMES_MIXED >= full_HW.sum():
        return SentinelView(dataset)
    note = (
        f"Pixels of {largest} in every band have no no-data tag, and no other value comes near to it: they are read as "
        "no data. If they are saturated ground, write them as another value first."
    )
    return SentinelView(open_virtual_copy(dataset, views, describe=partial(_tag_bands, value=float(largest))), (), note)


def is_never_measured(value: float) -> bool:
    """Tell whether a value that is tagged as no data cannot be a measurement: it hides a pixel in any band."""
    return value < 0 or abs(value) >= MAX_MEASURED


def choose_warp_options(dataset: Any) -> dict[str, str]:
    """Return how GDAL warps a dataset: a band that was not measured leaves the whole pixel without data."""
    tag = dataset.nodata
    return {"UNIFIED_SRC_NODATA": "PARTIAL"} if tag is not None and is_never_measured(float(tag)) else {}


def _find_sentinels(dataset: Any) -> list[float]:
    """Return the sentinels of a decimated read, the most frequent one first."""
    return find_sentinels(_read_sample(dataset))


def _read_sample(dataset: Any) -> NDArray[Any]:
    """Return a decimated read CHW of the first bands; one of zeros where it fails: whoever reads the pixels says so."""
    bands = list(range(1, min(dataset.count, MAX_SAMPLE_BANDS) + 1))
    step = max(1.0, max(dataset.height, dataset.width) / MAX_SAMPLE_PX)
    size = max(1, round(dataset.height / step)), max(1, round(dataset.width / step))
    try:
        found: NDArray[Any] = dataset.read(bands, out_shape=(len(bands), *size))  # nearest neighbour: no value is mixed
    except RasterioError:
        return np.zeros((len(bands), 1, 1), dataset.dtypes[0])
    return found


def find_sentinels(data_CHW: NDArray[Any]) -> list[float]:
    """Return the values of an image that can only mean no data, the most frequent one first."""
    values_CHW = data_CHW.astype(np.float64)
    suspect_CHW = np.isfinite(values_CHW) & ((values_CHW < 0) | (values_CHW >= MAX_MEASURED))
    if not suspect_CHW.any():
        return []
    values_N, counts_N = np.unique(values_CHW[suspect_CHW], return_counts=True)
    numbers = dict(zip(values_N.tolist(), counts_N.tolist(), strict=True))
    usual = {*USUAL_SENTINELS, *([float(np.iinfo(data_CHW.dtype).min)] if data_CHW.dtype.kind == "i" else [])}
    found = [value for value in numbers if abs(value) >= MAX_MEASURED or (value in usual and _is_alone(numbers, value))]
    if not found and _is_heap_far_below(values_CHW, float(values_N[0])):
        found = [float(values_N[0])]
    return sorted(found, key=lambda value: -numbers[value])


def _is_alone(numbers: dict[float, int], sentinel: float) -> bool:
    """Tell whether few pixels lie between a sentinel and its half: resampling may have mixed some with the ground."""
    mixed = sum(count for value, count in numbers.items() if sentinel < value <= sentinel / 2)
    return mixed * MIN_TIMES_MIXED < numbers[sentinel]


def _is_heap_far_below(values_CHW: NDArray[np.float64], lowest: float) -> bool:
    """Tell whether the lowest value is that of many pixels in all bands, and lies a whole range below the others."""
    others_N = values_CHW[np.isfinite(values_CHW) & (values_CHW != lowest)]
    heap_frac = float((values_CHW == lowest).all(axis=0).mean())
    return bool(heap_frac >= MIN_HEAP_FRAC and others_N.size and lowest < 2 * others_N.min() - others_N.max())


def _tag_bands(root: ET.Element, *, value: float) -> None:
    """Give every band the no-data tag."""
    for band in root.findall("VRTRasterBand"):
        tag = ET.Element("NoDataValue")
        tag.text = repr(value)
        band.insert(0, tag)
