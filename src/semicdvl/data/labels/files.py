"""Read a label file: a change mask of 0, 1 and IGNORE, or a class map; whole or a window of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from semicdvl.data.images.files import (
    PILLOW_SUFFIXES,
    UInt8Array,
    WindowPx,
    cut_window,
    decode_file,
    find_raster_window,
    open_image_raster,
    open_picture,
)
from semicdvl.data.labels.classes import decode_classes
from semicdvl.data.labels.masks import decode_label
from semicdvl.data.labels.stored import StoredLabel, read_stored_picture, read_stored_raster
from semicdvl.types import ClassLegend


def read_mask(
    path: Path, *, window_px: WindowPx | None = None, label_values: Mapping[int, int] | None = None
) -> UInt8Array:
    """Return a change mask as uint8 HW of 0 (unchanged), 1 (changed) and IGNORE.

    Args:
        path: label file. In files 255 means *changed*; `masks.decode_label` makes 1 of it, from the colours that
            a viewer shows.
        window_px: part of the file to read; None: all of it.
        label_values: value in the file -> 0, 1 or IGNORE, for files with other values than {0, 255} and {0, 1}.

    Raises:
        InputError: missing, broken, a colour image, it holds other values, or can be read in two ways.
        ConfigError: `label_values` maps to something else than 0, 1 and IGNORE.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES:
        return cut_window(path, decode_label(read_stored_label(path), label_values=label_values), window_px)
    return decode_label(read_stored_label(path, window_px=window_px), label_values=label_values)


def read_classes(path: Path, legend: ClassLegend, *, window_px: WindowPx | None = None) -> UInt8Array:
    """Return a class map as uint8 HW of 0 .. K-1 and IGNORE, see `classes.decode_classes`.

    Raises:
        InputError: missing, broken, compressed with loss, or it holds a class or a colour that the legend lacks.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES:
        return cut_window(path, decode_classes(read_stored_label(path), legend), window_px)
    return decode_classes(read_stored_label(path, window_px=window_px), legend)


def read_stored_label(path: Path, *, window_px: WindowPx | None = None) -> StoredLabel:
    """Return the pixels of a label file as stored, for `masks.decode_label`; pictures only as a whole.

    Raises:
        InputError: missing, broken, or the window lies outside.
    """
    if path.suffix.lower() in PILLOW_SUFFIXES:
        assert window_px is None, "pictures are decoded as a whole"
        with open_picture(path) as picture:
            return decode_file(path, lambda: read_stored_picture(path, picture))
    with open_image_raster(path) as raster:
        window = find_raster_window(path, raster, window_px)
        return decode_file(path, lambda: read_stored_raster(path, raster, window))
