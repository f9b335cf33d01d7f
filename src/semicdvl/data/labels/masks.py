"""Decide what a label file says: changed, unchanged or not known, from the values that a viewer shows.

Formats store a black and white mask in many ways: as a palette, with white as the smallest number, as three equal
bands, with an alpha band, compressed with loss. One function decides for training, for the preparation of data sets and
for the evaluation: white (255, or the number 1) has changed and black (0) has not, whatever number stands for it in the
file. Where a file can be read in two ways it is refused.

Tools that rasterise polygons often declare 0 as the no-data value. In a mask of two values it then hides every
unchanged pixel, so a tag on 0 says nothing here; a tag on 1 or 255 counts where the file also holds another value for
change.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semicdvl.data.labels.stored import StoredLabel, UInt8Array
from semicdvl.errors import ConfigError, InputError
from semicdvl.types import IGNORE

WHITE_16_BIT = 65_535
LOSSY_MARGIN = 64
"""A value of a mask compressed with loss is clear where it is nearer than this to 0 or to 255."""
MAX_UNCLEAR_FRAC = 0.05
"""A mask compressed with loss may hold this share of unclear values, along edges; others have grey areas."""
MAX_BAND_DIFFERENCE = 24
"""By so much the bands of a grey image may differ after compression with loss."""
_SAY_VALUES = "--label-values 255=changed,0=unchanged (in a recipe: data.label_values = '255=changed,0=unchanged')"


# ------------------------------------------------------------------------------------------------ deciding
def decode_label(
    stored: StoredLabel, *, label_values: Mapping[int, int] | None = None, unknown_values: frozenset[int] = frozenset()
) -> UInt8Array:
    """Translate what a label file holds into uint8 HW of 0 (unchanged), 1 (changed) and IGNORE.

    Args:
        stored: the pixels; all of the file, or a window.
        label_values: value -> 0, 1 or IGNORE, said by the user; values as shown, or as stored if only these fit.
        unknown_values: values that mean "not known", in addition to 0, 1 and 255.

    Raises:
        InputError: it is a colour image, holds other values, or can be read in two ways.
        ConfigError: `label_values` maps to something else than 0, 1 and IGNORE.
    """
    values_HW, hidden_values = _find_shown_values(stored, label_values)
    if label_values is None and values_HW.dtype == np.uint16 and np.isin(values_HW, (0, WHITE_16_BIT)).all():
        values_HW = (values_HW != 0).astype(np.uint8) * np.uint8(255)
        hidden_values = frozenset(255 if value == WHITE_16_BIT else value for value in hidden_values)
    opaque_HW = np.ones(values_HW.shape, bool) if stored.opaque_HW is None else stored.opaque_HW
    if values_HW.dtype.kind == "f":
        opaque_HW = opaque_HW & np.isfinite(values_HW)
    if label_values is not None:
        return np.where(opaque_HW, _apply_label_values(stored.path, values_HW, opaque_HW, label_values), IGNORE).astype(
            np.uint8
        )
    if stored.lossy:
        values_HW = _threshold_lossy(stored.path, values_HW, opaque_HW)
    classes_HW = _apply_usual_values(stored.path, values_HW, opaque_HW, hidden_values, unknown_values)
    _require_visible_unchanged(stored.path, values_HW, classes_HW, opaque_HW)
    return classes_HW


def _apply_usual_values(
    path: Path,
    values_HW: NDArray[np.generic],
    opaque_HW: NDArray[np.bool_],
    hidden_values: frozenset[int],
    unknown_values: frozenset[int],
) -> UInt8Array:
    """Translate 0 and 255, or 0 and 1; hidden values are those that are tagged as no data."""
    values = find_whole_values(path, values_HW[opaque_HW & ~np.isin(values_HW, list(hidden_values - {0, 1, 255}))])
    ignored = set(unknown_values) | (hidden_values & ({1, 255} if values >= {1, 255} else set()))
    hidden_change = values & hidden_values & {1, 255} - ignored
    if hidden_change:
        raise InputError(
            path,
            f"is a label whose value {min(hidden_change)} is tagged as no data, so it may mean changed or not known",
            f"Say what it means with {_SAY_VALUES}, or with --truth-nodata {min(hidden_change)}",
        )
    if not (values - ignored <= {0, 1} or values - ignored <= {0, 255}):
        raise InputError(
            path,
            f"is a label with the values {format_values(values)}, where {{0, 255}} or {{0, 1}} was expected",
            f"Convert it to 0 and 255, or say what they mean with {_SAY_VALUES}",
        )
    known_HW = opaque_HW & ~np.isin(values_HW, list(ignored | (hidden_values - {0, 1, 255})))
    return np.where(known_HW, np.asarray(values_HW != 0), IGNORE).astype(np.uint8)


def _apply_label_values(
    path: Path, values_HW: NDArray[np.generic], opaque_HW: NDArray[np.bool_], label_values: Mapping[int, int]
) -> UInt8Array:
    """Translate as the user said."""
    if bad := set(label_values.values()) - {0, 1, IGNORE}:
        raise ConfigError(
            f"label_values maps to {format_values(bad)}; only 0 (unchanged), 1 (changed), 255 (ignore) exist."
        )
    values = find_whole_values(path, values_HW[opaque_HW])
    if missing := values - set(label_values):
        raise InputError(
            path, f"holds the values {format_values(missing)}, which are not in label_values", "Add them to the option"
        )
    classes_HW = np.full(values_HW.shape, IGNORE, np.uint8)
    for value in values:
        classes_HW[values_HW == value] = label_values[value]
    return classes_HW


def _require_visible_unchanged(
    path: Path, values_HW: NDArray[np.generic], classes_HW: UInt8Array, opaque_HW: NDArray[np.bool_]
) -> None:
    """Refuse a mask whose transparency hides all that is black and nothing else: then it says what changed only."""
    hidden_HW = ~opaque_HW
    if hidden_HW.any() and (classes_HW[opaque_HW] == 1).all() and not np.any(values_HW[hidden_HW]) and opaque_HW.any():
        raise InputError(
            path,
            "is a label whose transparency hides every pixel that is not changed, so no unchanged pixel is known",
            "Save it without transparency, or as one number per pixel: 0 or 255",
        )


def _threshold_lossy(path: Path, values_HW: NDArray[Any], opaque_HW: NDArray[np.bool_]) -> NDArray[Any]:
    """Return 0 or 255 for the values of a mask compressed with loss, or say that it also has grey areas."""
    if values_HW.dtype != np.uint8:
        return values_HW
    values_HW = np.asarray(values_HW, np.uint8)
    if not np.any((values_HW[opaque_HW] > 1) & (values_HW[opaque_HW] < 255)):
        return values_HW
    unclear_HW = (values_HW >= LOSSY_MARGIN) & (values_HW <= 255 - LOSSY_MARGIN) & opaque_HW
    areas_HW = cv2.erode(unclear_HW.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
    if areas_HW.any() or unclear_HW.mean() > MAX_UNCLEAR_FRAC or not (values_HW[opaque_HW] < LOSSY_MARGIN).any():
        raise InputError(
            path,
            "is a label compressed with loss, and its values are not clearly black or white",
            "Save it without loss as 0 and 255, or give a threshold: --label-values 0-127=unchanged,128-255=changed",
        )
    return np.where(values_HW > 127, np.uint8(255), np.uint8(0))


# ------------------------------------------------------------------------------------------------ values as shown
def _find_shown_values(
    stored: StoredLabel, label_values: Mapping[int, int] | None
) -> tuple[NDArray[np.generic], frozenset[int]]:
    """Return the values HW that a viewer shows, and those of them that are tagged as no data."""
    band_HW = _select_single_band(stored)
    tagged = frozenset(int(value) for value in stored.nodata_values if float(value).is_integer())
    if stored.palette_N4 is None:
        return band_HW, tagged
    colours_N4 = stored.palette_N4
    occurring = sorted(find_whole_values(stored.path, band_HW))
    if occurring and not 0 <= occurring[0] <= occurring[-1] < len(colours_N4):
        raise InputError(stored.path, "holds values that its palette does not name", "Save one number per pixel")
    rgb_N3 = colours_N4[occurring, :3]
    transparent = {index for index in occurring if colours_N4[index, 3] == 0}
    if not (rgb_N3 == rgb_N3[:, :1]).all():
        _require_plain_classes(stored, set(occurring) - tagged - transparent, label_values)
        return band_HW, tagged | transparent
    shown = {int(grey) for grey in rgb_N3[:, 0]}
    if label_values is not None and not shown <= set(label_values) and set(occurring) <= set(label_values):
        return band_HW, tagged | transparent
    if len(shown) < len(occurring):
        raise InputError(
            stored.path,
            f"is a label whose palette shows the values {format_values(set(occurring))} in the same colour",
            "Save one number per pixel: 0 or 255",
        )
    hidden = frozenset(int(colours_N4[index, 0]) for index in (tagged & set(occurring)) | transparent)
    return colours_N4[..., 0][np.asarray(band_HW, np.int64)], hidden


def _require_plain_classes(stored: StoredLabel, occurring: set[int], label_values: Mapping[int, int] | None) -> None:
    """Refuse colours of which nobody said what they mean; 0 (black) and 1 or 255 are what they are elsewhere."""
    assert stored.palette_N4 is not None, "only files with a palette come here"
    first_is_black = not stored.palette_N4[0, :3].any() or stored.palette_N4[0, 3] == 0
    if label_values is not None or (first_is_black and (occurring <= {0, 1} or occurring <= {0, 255})):
        return
    colours = ", ".join(
        f"{index}: rgb{tuple(stored.palette_N4[index, :3].tolist())}" for index in sorted(occurring)[:4]
    )
    raise InputError(
        stored.path,
        f"is a label in colours of which it is not known what they mean ({colours})",
        "Say what the numbers mean with --label-values, such as 1=changed,0=unchanged (in a recipe: data.label_values)",
    )


def _select_single_band(stored: StoredLabel) -> NDArray[np.generic]:
    """Return the one band of a mask; three equal ones count as one."""
    bands_HWC = stored.bands_HWC
    if bands_HWC.shape[2] < 3:
        return bands_HWC[..., 0]
    rgb_HWC = bands_HWC[..., :3]
    if stored.lossy and rgb_HWC.dtype == np.uint8:
        spread_HW = np.ptp(np.asarray(rgb_HWC, np.int16), axis=2)
        if spread_HW.max(initial=0) <= MAX_BAND_DIFFERENCE:
            return bands_HWC[..., 1]
    opaque_HW = ... if stored.opaque_HW is None else stored.opaque_HW
    if not all(np.array_equal(rgb_HWC[opaque_HW][..., 0], rgb_HWC[opaque_HW][..., band]) for band in (1, 2)):
        raise InputError(
            stored.path, "is a colour image, but a mask has one band", "Save one number per pixel: 0 or 255"
        )
    return bands_HWC[..., 0]


def find_whole_values(path: Path, values_N: NDArray[np.generic]) -> set[int]:
    """Return the values that occur in a mask.

    Raises:
        InputError: they are not whole numbers.
    """
    if values_N.dtype == np.bool_:
        values_N = values_N.astype(np.uint8)
    if values_N.dtype == np.uint8:
        return set(np.flatnonzero(np.bincount(np.asarray(values_N, np.uint8).ravel(), minlength=256)).tolist())
    if values_N.dtype.kind not in "iuf":
        raise InputError(
            path, f"is a label of {values_N.dtype} values, which are not plain numbers", "Save it as bytes: 0 or 255"
        )
    unique = np.unique(np.asarray(values_N))
    finite = unique[np.isfinite(unique)] if unique.dtype.kind == "f" else unique
    if not np.array_equal(finite, finite.astype(np.int64)):
        raise InputError(
            path, "is a label with numbers that are not whole", "Save one whole number per pixel: 0 or 255"
        )
    return set(finite.astype(np.int64).tolist())


def format_values(values: set[int]) -> str:
    """Format a set of numbers, a long one shortened."""
    shown = ", ".join(str(value) for value in sorted(values)[:6])
    return f"{{{shown}{', ...' if len(values) > 6 else ''}}}"
