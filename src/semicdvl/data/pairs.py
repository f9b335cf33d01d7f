"""Read one pair of images and its label as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from semicdvl.data.images.cache import ImageCache
from semicdvl.data.images.files import UInt8Array
from semicdvl.data.images.reading import read_image_size, read_opaque
from semicdvl.errors import InputError
from semicdvl.types import IGNORE, PairFiles


class PairArrays(NamedTuple):
    """One pair, decoded: two images HWC and the mask HW of 0, 1 and IGNORE (None without a label).

    The images are uint8 RGB; from a cache with `bands` they hold these in physical values.
    """

    t1_HWC: NDArray[Any]
    t2_HWC: NDArray[Any]
    label_HW: UInt8Array | None


class ClassMaps(NamedTuple):
    """The classes of one pair at both dates, uint8 HW of 0 .. K-1 and IGNORE (throughout where there is no file)."""

    t1_HW: UInt8Array
    t2_HW: UInt8Array


def read_pair(
    pair: PairFiles,
    *,
    label_values: Mapping[int, int] | None = None,
    cache: ImageCache | None = None,
    with_label: bool = True,
) -> PairArrays:
    """Decode one pair.

    Args:
        pair: the files, and the window of them that makes up the pair.
        label_values: as in `labels.files.read_mask`; not used with a cache, which has its own.
        cache: decoded files to look in first. Arrays from it are shared: don't write into them.
        with_label: False leaves the label file unread.

    Raises:
        InputError: a file is missing, broken, not 8-bit RGB, holds unknown label values, or the sizes differ.
    """
    source = cache or ImageCache(0, label_values=label_values)
    t1_HWC, t2_HWC = source.read_image(pair.before, pair.window_px), source.read_image(pair.after, pair.window_px)
    require_same_size(pair.after, t2_HWC.shape[:2], pair.before, t1_HWC.shape[:2])
    return PairArrays(t1_HWC, t2_HWC, read_known_label(pair, cache=source) if with_label else None)


def read_known_label(pair: PairFiles, *, cache: ImageCache) -> UInt8Array | None:
    """Return the label as `read_pair` gives it, not known where an image of the pair is transparent.

    Raises:
        InputError: as `read_label`, or the sizes of label and image differ.
    """
    label_HW = read_label(pair, cache=cache)
    if label_HW is None:
        return None
    require_same_size(pair.label or pair.before, label_HW.shape[:2], pair.before, read_pair_size(pair))
    return ignore_transparent(pair, label_HW)


def read_label(pair: PairFiles, *, cache: ImageCache) -> UInt8Array | None:
    """Return where a pair has changed, as uint8 HW of 0, 1 and IGNORE; None if that is not known.

    Without a mask, class maps say so that know classes on changed ground only: where either knows one.

    Raises:
        InputError: as `labels.files.read_mask` and `labels.files.read_classes`.
    """
    if pair.label is not None:
        return cache.read_mask(pair.label, pair.window_px)
    if not pair.has_label:
        return None
    t1_HW, t2_HW = read_class_maps(pair, cache=cache)
    changed_HW: UInt8Array = ((t1_HW != IGNORE) | (t2_HW != IGNORE)).astype(np.uint8)
    return changed_HW


def read_class_maps(pair: PairFiles, *, cache: ImageCache) -> ClassMaps:
    """Return the classes of a pair at both dates.

    Raises:
        InputError: as `labels.files.read_classes`, or a map has another size than the pair's images.
    """
    size_px = read_pair_size(pair)
    maps = []
    for path in (None, None) if pair.classes is None else (pair.classes.before, pair.classes.after):
        if path is None:
            maps.append(np.full(size_px, IGNORE, np.uint8))
            continue
        assert pair.classes is not None
        class_HW = cache.read_classes(path, pair.classes.legend, pair.window_px)
        require_same_size(path, class_HW.shape, pair.before, size_px)
        maps.append(ignore_transparent(pair, class_HW))
    return ClassMaps(*maps)


def ignore_transparent(pair: PairFiles, labels: UInt8Array) -> UInt8Array:
    """Return a label HW, or several HWC, not known where an image of the pair is transparent; as it is if none is."""
    opaque_HW = read_pair_opaque(pair)
    if opaque_HW is None:
        return labels
    return np.where(opaque_HW if labels.ndim == 2 else opaque_HW[..., None], labels, np.uint8(IGNORE))


def read_pair_opaque(pair: PairFiles) -> NDArray[np.bool_] | None:
    """Return HW, True where both images of a pair show something; None where neither is transparent anywhere."""
    found = [read_opaque(path, window_px=pair.window_px) for path in (pair.before, pair.after)]
    masks = [opaque_HW for opaque_HW in found if opaque_HW is not None]
    return np.asarray(np.logical_and.reduce(masks)) if masks else None


def read_pair_size(pair: PairFiles) -> tuple[int, int]:
    """Return (height, width) of a pair in px, from its window or the first image's header."""
    return pair.window_px[2:] if pair.window_px else read_image_size(pair.before)


def require_same_size(path: Path, size: tuple[int, ...], other: Path, other_size: tuple[int, ...]) -> None:
    """Raise `InputError` if the (height, width) of two files of one pair differ."""
    if tuple(size) != tuple(other_size):
        raise InputError(
            path,
            f"is {size[0]} x {size[1]} px, but {other.name} of the same pair is {other_size[0]} x {other_size[1]} px",
            "Both dates and the label of a pair must cover the same ground at the same size",
        )
