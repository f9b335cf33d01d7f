"""Classes of each date: the file `classes.toml` that names them, and what a file of them holds.

    names = ["building", "road", "water"]                   index 0, 1, 2
    colours = [[128, 0, 0], [128, 128, 128], [0, 0, 255]]   optional: one per class; or a table [colours] by name
    unknown = [[255, 255, 255]]                             optional: colours that mean "not known"

A class map of one band holds the indices, and 255 where the class is not known. One of three bands, or with a palette,
shows the colours of `classes.toml`; a palette without such colours counts as indices. What is transparent, or tagged as
no data, is not known.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semicdvl.data.labels.masks import find_whole_values
from semicdvl.data.labels.stored import StoredLabel
from semicdvl.errors import ConfigError, InputError
from semicdvl.reading.json_files import check_values
from semicdvl.registry import suggest_nearest
from semicdvl.text_files import read_text_file
from semicdvl.types import IGNORE, ClassLegend

LEGEND_FILE = "classes.toml"
_KEYS = ("names", "colours", "unknown")
_EXAMPLE = f'Write such as names = ["building", "road", "water"] into {LEGEND_FILE}'


# ------------------------------------------------------------------------------------------------ the legend
def read_legend(path: Path) -> ClassLegend:
    """Read `classes.toml`.

    Raises:
        InputError: the file is missing or is not of this form.
        ConfigError: names or colours don't tell the classes apart, or a colour is of no class.
    """
    try:
        content = tomllib.loads(read_text_file(path))
        check_values(content)
    except (ValueError, RecursionError) as error:  # also whole numbers of thousands of digits
        raise InputError(path, f"is not valid TOML ({error})", _EXAMPLE) from error
    for key in content:
        if key not in _KEYS:
            known = f"{suggest_nearest(key, _KEYS)} Known: {', '.join(_KEYS)}"
            raise InputError(path, f"has the unknown key '{key}'", known.strip())
    names = content.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(path, "does not give the names of the classes as a list of texts", _EXAMPLE)
    colours = content.get("colours")
    try:
        if isinstance(colours, dict):
            colours = _order_colours(colours, names)
        unknown = _parse_colours(path, content.get("unknown", []))
        return ClassLegend(tuple(names), None if colours is None else _parse_colours(path, colours), unknown)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _order_colours(colours: dict[str, Any], names: Sequence[str]) -> list[Any]:
    """Return colours given by name in the order of the names."""
    for name in colours:
        if name not in names:
            raise ConfigError(
                f"the colour {colours[name]} is of '{name}', which is no class.{suggest_nearest(name, names)} "
                "Add the name, or take the colour out."
            )
    if missing := [name for name in names if name not in colours]:
        raise ConfigError(f"the class '{missing[0]}' has no colour. Give one for each class, or none at all.")
    return [colours[name] for name in names]


def _parse_colours(path: Path, colours: Any) -> tuple[tuple[int, int, int], ...]:
    """Return a list of [red, green, blue] as tuples; the legend checks the numbers."""
    fits = isinstance(colours, list) and all(
        isinstance(colour, list) and len(colour) == 3 and all(type(band) is int for band in colour)
        for colour in colours
    )
    if not fits:
        raise InputError(path, "does not give colours as [red, green, blue]", "Give whole numbers from 0 to 255")
    return tuple((red, green, blue) for red, green, blue in colours)


# ------------------------------------------------------------------------------------------------ a class map
def decode_classes(stored: StoredLabel, legend: ClassLegend) -> NDArray[np.uint8]:
    """Translate what a file of classes holds into uint8 HW of 0 .. K-1 and IGNORE.

    Args:
        stored: the pixels; all of the file, or a window.
        legend: the classes, with their colours where files show them.

    Raises:
        InputError: it is compressed with loss, a colour image without a legend of colours, or holds a colour or an
            index that is of no class.
    """
    if stored.lossy:
        raise InputError(
            stored.path, "holds classes and is compressed with loss, which mixes them", "Save it as PNG or GeoTIFF"
        )
    known_HW = np.ones(stored.bands_HWC.shape[:2], bool) if stored.opaque_HW is None else stored.opaque_HW
    band_HW = stored.bands_HWC[..., 0]
    if stored.nodata_values and stored.bands_HWC.shape[2] < 3:
        known_HW = known_HW & ~np.isin(band_HW, list(stored.nodata_values))
    if band_HW.dtype.kind == "f":
        known_HW = known_HW & np.isfinite(band_HW)
    has_colours = (stored.palette_N4 is not None and not stored.zero_is_white) or stored.bands_HWC.shape[2] >= 3
    if has_colours and legend.colours is not None:
        return _decode_colours(stored, legend, known_HW)
    return _decode_indices(stored, legend, known_HW)


def _decode_colours(stored: StoredLabel, legend: ClassLegend, known_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Translate a picture, or a palette, by the colours of the legend."""
    assert legend.colours is not None
    if stored.palette_N4 is not None:
        index_HW = np.asarray(stored.bands_HWC[..., 0], np.int64)
        known_HW = known_HW & (stored.palette_N4[index_HW, 3] > 0)
        rgb_HWC: NDArray[np.generic] = stored.palette_N4[index_HW, :3]
    else:
        rgb_HWC = stored.bands_HWC[..., :3]
    codes_HW = np.asarray(rgb_HWC, np.int64) @ np.array([65536, 256, 1])
    values_N, places_N = np.unique(codes_HW[known_HW], return_inverse=True)
    class_of = dict.fromkeys(map(_encode_colour, legend.unknown_colours), IGNORE)
    class_of |= {_encode_colour(colour): index for index, colour in enumerate(legend.colours)}
    for at, value in enumerate(values_N.tolist()):
        if value not in class_of:
            colour, count_px = [value >> 16, value >> 8 & 255, value & 255], int((places_N == at).sum())
            raise InputError(
                stored.path,
                f"holds the colour {colour} in {count_px} px, which no class has",
                f"Correct the file, or add the colour to a class or to `unknown` in {LEGEND_FILE}",
            )
    class_HW = np.full(codes_HW.shape, IGNORE, np.uint8)
    class_HW[known_HW] = np.array([class_of[value] for value in values_N.tolist()], np.uint8)[places_N.ravel()]
    return class_HW


def _encode_colour(colour: tuple[int, int, int]) -> int:
    """Return one number for a colour."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _decode_indices(stored: StoredLabel, legend: ClassLegend, known_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Translate indices; three equal bands count as one."""
    bands_HWC = stored.bands_HWC
    if bands_HWC.shape[2] >= 3 and not all((bands_HWC[..., 0] == bands_HWC[..., band]).all() for band in (1, 2)):
        raise InputError(
            stored.path,
            f"is a colour image, and {LEGEND_FILE} gives no colours",
            "Give one colour for each class there, or save one number per pixel",
        )
    values = find_whole_values(stored.path, bands_HWC[..., 0][known_HW])
    if strange := sorted(value for value in values if value != IGNORE and not 0 <= value < legend.count):
        raise InputError(
            stored.path,
            f"holds the class {strange[-1]}, but there are {legend.count}: 0 ({legend.names[0]}) to"
            f" {legend.count - 1} ({legend.names[-1]})",
            f"Correct the file, or name the class in {LEGEND_FILE}; 255 means not known",
        )
    class_HW: NDArray[np.uint8] = np.full(known_HW.shape, IGNORE, np.uint8)
    class_HW[known_HW] = bands_HWC[..., 0][known_HW]
    return class_HW
