"""The bands and values that a file stores: which are red, green and blue, and what makes grey values of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp

from semicdvl.errors import InputError

COLOURS = ("red", "green", "blue")
SENTINEL2_COLOURS = {"4": "red", "3": "green", "2": "blue"}
"""Numbers of the colours of Sentinel-2, and of Landsat 8 and 9."""
SENTINEL2_MARK = re.compile(r"b0\d|b8a?|b1[12]")
"""Band names that the sensors with other numbers of red, green and blue (Landsat 5 and 7, MODIS) don't have, or whose
band lies in a file of its own (Landsat's panchromatic band 8)."""
FILLER_WORDS = frozenset({"band", "channel", "central", "wavelength", "nm", "sr", "toa", "boa", "reflectance"})
_TAGS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
_SENTINEL2_NUMBER = re.compile(r"b0?([234])")
_NUMBER = re.compile(r"b?\d+")


@dataclass(frozen=True)
class Stretch:
    """A linear map of data values to grey values 0-255, per band.

    Attributes:
        low_C, high_C: the data values of each band that become 0 and 255; the low one is the larger one where brighter
            ground has smaller values.
    """

    low_C: NDArray[np.float64]
    high_C: NDArray[np.float64]

    def __call__(self, data_CHW: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the data as uint8; values beyond the limits are clipped, NaN becomes 0."""
        scale_C = 255.0 / self._range_C
        scaled_CHW = (data_CHW - self.low_C[:, None, None]) * scale_C[:, None, None]
        image_CHW: NDArray[np.uint8] = np.nan_to_num(np.clip(np.rint(scaled_CHW), 0, 255), nan=0.0).astype(np.uint8)
        return image_CHW

    @property
    def _range_C(self) -> NDArray[np.float64]:
        """The range of each band, never 0."""
        range_C = self.high_C - self.low_C
        return np.where(np.abs(range_C) < 1e-12, 1e-12, range_C)

    def format_limits(self) -> str:
        """Return the limits of every band: `200-3000 210-2900 190-3100`."""
        return " ".join(f"{low:.4g}-{high:.4g}" for low, high in zip(self.low_C, self.high_C, strict=True))

    def scale(self, data_CHW: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the data as grey values from 0 to 255 that are not rounded."""
        scaled_CHW = 255.0 * (data_CHW - self.low_C[:, None, None]) / self._range_C[:, None, None]
        return np.asarray(np.clip(scaled_CHW, 0, 255))


@dataclass(frozen=True)
class OverviewSample:
    """A decimated read of a whole image.

    Attributes:
        data_CHW: values of the bands.
        valid_HW: where the file has data.
        black_HW: where a black border lies that no tag declares as no-data.
    """

    data_CHW: NDArray[Any]
    valid_HW: NDArray[np.bool_]
    black_HW: NDArray[np.bool_]

    @property
    def usable_HW(self) -> NDArray[np.bool_]:
        """Where there is data and no black border."""
        return self.valid_HW & ~self.black_HW


@dataclass(frozen=True)
class BandScaling:
    """What makes physical values of stored ones: `scale * stored + offset`, per band.

    Two dates of one sensor may be stored differently, as Sentinel-2 is before and after January 2022.

    Attributes:
        scale_C: the factors; none is 0.
        offset_C: what is added.
    """

    scale_C: NDArray[np.float64]
    offset_C: NDArray[np.float64]

    @classmethod
    def read(cls, dataset: Any, bands: Sequence[int]) -> BandScaling:
        """Return the tags of the bands of an open dataset; a scale of 0, which some writers leave, counts as none."""
        scale_C = np.array([dataset.scales[band - 1] for band in bands], np.float64)
        offset_C = np.array([dataset.offsets[band - 1] for band in bands], np.float64)
        usable_C = np.isfinite(scale_C) & (scale_C != 0) & np.isfinite(offset_C)
        return cls(np.where(usable_C, scale_C, 1.0), np.where(usable_C, offset_C, 0.0))

    @property
    def is_identity(self) -> bool:
        """Whether stored values are physical ones."""
        return bool((self.scale_C == 1).all() and (self.offset_C == 0).all())

    def select(self, count: int) -> BandScaling:
        """Return the scaling of the first bands."""
        return BandScaling(self.scale_C[:count], self.offset_C[:count])

    def apply(self, stored_CHW: NDArray[Any]) -> NDArray[np.float32]:
        """Return the physical values of stored ones."""
        if self.is_identity:
            return stored_CHW.astype(np.float32)
        return (stored_CHW * self.scale_C[:, None, None] + self.offset_C[:, None, None]).astype(np.float32)

    def equals(self, other: BandScaling) -> bool:
        """Tell whether the bands of both are stored alike."""
        return np.array_equal(self.scale_C, other.scale_C) and np.array_equal(self.offset_C, other.offset_C)

    def to_stored(self, stretch: Stretch) -> Stretch:
        """Return a stretch of physical values as one of stored values."""
        return Stretch(*((limit_C - self.offset_C) / self.scale_C for limit_C in (stretch.low_C, stretch.high_C)))

    def to_physical(self, stretch: Stretch) -> Stretch:
        """Return a stretch of stored values as one of physical values."""
        return Stretch(*(limit_C * self.scale_C + self.offset_C for limit_C in (stretch.low_C, stretch.high_C)))


# ------------------------------------------------------------------------------------------------ colours
@dataclass(frozen=True)
class ColourBands:
    """Which bands of a raster are read as red, green and blue.

    Attributes:
        numbers: from 1, red, green and blue first.
        is_told: whether the file says so, by names or tags, or has no more than three bands; else they are a guess.
        note: what a reader of the result should know; empty if nothing speaks against them.
    """

    numbers: tuple[int, ...]
    is_told: bool = True
    note: str = ""


def select_bands(dataset: Any, bands: Sequence[int] | None = None, *, display_name: str) -> ColourBands:
    """Return the bands of an open raster to read: the requested ones, or red, green and blue.

    Names of bands come first, then colour tags, then convention: GDAL tags the first bands of any 8-bit GeoTIFF of
    three or four bands as red, green and blue unless it is told otherwise, whatever they show; a name is given on
    purpose.

    Raises:
        InputError: the raster lacks a requested band, or has fewer than three.
    """
    has = "1 band" if dataset.count == 1 else f"{dataset.count} bands"
    if bands is not None:
        if len(bands) < len(COLOURS) or not all(1 <= band <= dataset.count for band in bands):
            problem = f"The image has {has}, but the bands {','.join(map(str, bands))} were requested"
            raise InputError(display_name, problem, "Give three or more band numbers from 1, like 4,3,2")
        return ColourBands(tuple(bands))
    if dataset.count < len(COLOURS) or (dataset.count == len(COLOURS) and ColorInterp.alpha in dataset.colorinterp):
        problem = f"The image has {has}, but red, green and blue are needed"
        remedy = "Give an image of 3 or more bands, or name the bands to read with --bands (1,1,1 for a grey image)"
        raise InputError(display_name, problem, remedy)
    tags = list(dataset.colorinterp)
    tagged = tuple(tags.index(tag) + 1 for tag in _TAGS) if set(_TAGS) <= set(tags) else None
    named = find_named_colours(dataset.descriptions) if any(dataset.descriptions) else None
    if named is not None:
        return ColourBands(named, note="" if tagged in (None, named) else _describe_names(dataset, named, tagged))
    return _guess_colours(tags) if tagged is None else ColourBands(tagged)


def _guess_colours(tags: Sequence[ColorInterp]) -> ColourBands:
    """Return the first three bands, and say that they are a guess where there are more."""
    bands = sum(tag != ColorInterp.alpha for tag in tags)
    if bands <= len(COLOURS):
        return ColourBands((1, 2, 3))
    note = (
        f"The file does not say which of its {bands} bands are red, green and blue: the bands 1, 2 and 3 are taken for "
        "them. Name the right ones with --bands, such as --bands 3,2,1 where the order is blue, green, red, near "
        "infrared, as in the deliveries of many satellites."
    )
    return ColourBands((1, 2, 3), is_told=False, note=note)


def find_named_colours(names: tuple[str | None, ...]) -> tuple[int, ...] | None:
    """Return the numbers of the bands that are named red, green and blue; None unless each is named exactly once.

    Names are words ("Red", "Band 4 - Red"), or numbers of Sentinel-2 ("B04", and "B4" beside a band that only
    Sentinel-2 has).
    """
    sentinel2 = any(name and SENTINEL2_MARK.fullmatch(name.strip().split(",")[0].lower()) for name in names)
    colours = [_name_colour(name or "", sentinel2=sentinel2) for name in names]
    if any(colours.count(colour) != 1 for colour in COLOURS):
        return None
    return tuple(colours.index(colour) + 1 for colour in COLOURS)


def _name_colour(name: str, *, sentinel2: bool) -> str | None:
    """Return the colour that the name of a band says and nothing else ("Red Edge" and "Coastal Blue" are others)."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    telling = [word for word in words if word not in FILLER_WORDS and not _NUMBER.fullmatch(word)]
    if telling:
        return telling[0] if len(telling) == 1 and telling[0] in COLOURS else None
    number = _SENTINEL2_NUMBER.fullmatch(words[0]) if words and sentinel2 else None
    return None if number is None else SENTINEL2_COLOURS[number.group(1)]


def _describe_names(dataset: Any, named: tuple[int, ...], tagged: tuple[int, ...]) -> str:
    """Say that the names of the bands were followed, not their tags."""
    names = ", ".join(f"'{dataset.descriptions[number - 1]}'" for number in named)
    return (
        f"The bands {_list_numbers(named)} are read as red, green and blue, because the file calls them "
        f"{names}, although its colour tags say {_list_numbers(tagged)}. --bands reads others."
    )


def _list_numbers(numbers: tuple[int, ...]) -> str:
    *first, last = numbers
    return f"{', '.join(map(str, first))} and {last}"
