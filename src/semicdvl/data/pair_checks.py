"""Check pairs before hours are spent on them: that files exist, fit each other and hold labels to learn from.

Bands other than RGB keep their values, and are standardised by the mean and the deviation of the training images. RGB
images of more than 8 bits get one stretch for all pairs and both dates. A network learns from the grey values that it
gives, so the run keeps it, and whoever applies the network uses the same one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray

from semicdvl.data.images.cache import ImageCache
from semicdvl.data.images.files import PILLOW_SUFFIXES, open_image_raster
from semicdvl.data.images.reading import (
    count_bands,
    holds_deep_values,
    read_bands,
    read_image_size,
    read_opaque,
    read_values,
)
from semicdvl.data.pairs import read_class_maps, read_label, require_same_size
from semicdvl.data.patch_files import read_source_bands
from semicdvl.errors import DataError, InputError
from semicdvl.raster.grid import drop_height
from semicdvl.raster.io.pair_stretch import measure_stretch
from semicdvl.raster.io.views.sentinel_values import find_sentinels
from semicdvl.raster.stored_values import OverviewSample, Stretch
from semicdvl.reading.json_files import shorten
from semicdvl.types import IGNORE, InputBands, PairFiles

MASK_CACHE_BYTES = 2**28
"""Memory for decoded masks while all files of a data set are checked."""
MAX_OFFSET_PX = 1.0
"""Two GeoTIFFs of a pair whose corners are farther apart than this don't show the same ground."""
MAX_MEASURED_PAIRS, MAX_SAMPLE_PX = 64, 128
"""A stretch is measured on so many pairs, spread over the list, of at most so many pixels on a side."""


def check_pair_files(pair: PairFiles, *, bands: Sequence[int] | None = None) -> None:
    """Check from the headers alone that a pair's files exist, are images and cover the same ground.

    Args:
        pair: what is checked.
        bands: 1-based numbers of the bands that are read; None: red, green and blue.

    Raises:
        InputError: a file is missing or no image, sizes differ, a band is missing or the dates have different numbers
            of bands, or two GeoTIFFs (labels included) are more than a pixel
            apart, or one is stored from south to north and the other not.
    """
    size = read_image_size(pair.before)
    require_same_size(pair.after, read_image_size(pair.after), pair.before, size)
    if bands is not None:
        _require_same_bands(pair, bands)
    labels = (*((pair.label,) if pair.label else ()), *(pair.classes.files if pair.classes else ()))
    for path in labels:
        require_same_size(path, read_image_size(path), pair.before, size)
    located = [path for path in (pair.before, pair.after, *labels) if path.suffix.lower() not in PILLOW_SUFFIXES]
    for path in located[1:]:
        _require_same_ground(located[0], path)


def check_all_pair_files(
    pairs: Sequence[PairFiles],
    *,
    label_values: Mapping[int, int] | None = None,
    read_masks: bool = True,
    require_changes: bool = True,
    read_classes: bool = False,
    bands: Sequence[int] | None = None,
) -> float | None:
    """Check the headers of all pairs, and all masks if they are used.

    Args:
        pairs: what is checked.
        label_values: as in `labels.files.read_mask`.
        read_masks: also read the label files.
        require_changes: with `read_masks`: some pixel must be labelled as changed.
        read_classes: also read the class maps of both dates.
        bands: as in `check_pair_files`.

    Returns:
        The share of the labelled pixels that are changed; None where no label was read.

    Raises:
        InputError: a file is missing or no image, sizes differ, or a mask or a class map holds unknown values.
        DataError: with `read_masks` and `require_changes`, if no pixel has a label, or none is changed.
    """
    cache = ImageCache(MASK_CACHE_BYTES, label_values=label_values)
    labelled_px = changed_px = 0
    checked: set[tuple[Path | None, ...]] = set()
    for pair in pairs:
        files = (pair.before, pair.after, pair.label, *(pair.classes.files if pair.classes else ()))
        if files not in checked:  # the crops of a tile share its files
            check_pair_files(pair, bands=bands)
            checked.add(files)
        if read_classes:
            read_class_maps(pair, cache=cache)
        label_HW = read_label(pair, cache=cache) if read_masks else None
        if label_HW is not None:
            labelled_px += int((label_HW != IGNORE).sum())
            changed_px += int((label_HW == 1).sum())
    if read_masks and require_changes and pairs and not changed_px:
        lacking = "a changed pixel" if labelled_px else "a labelled pixel"
        raise DataError(
            f"None of the labelled pairs ({len(pairs)}) has {lacking}: there is nothing to learn from."
            " Label more pairs, or use another seed for the split."
        )
    return changed_px / labelled_px if labelled_px else None


def _require_same_bands(pair: PairFiles, bands: Sequence[int]) -> None:
    """Raise if an image lacks a band, or the dates of a pair have different numbers of bands."""
    before, after = count_bands(pair.before), count_bands(pair.after)
    if before != after:
        raise InputError(
            pair.after,
            f"has {after} bands, but {pair.before.name} of the same pair has {before}",
            "Both dates of a pair must have the same bands in the same order",
        )
    if max(bands) > before:
        problem = f"has {before} bands, but band {max(bands)} is to be read"
        raise InputError(pair.before, problem, "Set data.bands to bands that all images have, or replace the file")


def _require_same_ground(first: Path, second: Path) -> None:
    """Raise if two rasters are georeferenced and don't cover the same place."""
    with open_image_raster(first) as before, open_image_raster(second) as after:
        if before.crs is None or after.crs is None:
            return
        remedy = "Resample one onto the grid of the other, e.g. with `gdalwarp`, and cut the patches again"
        crs, other = drop_height(before.crs), drop_height(after.crs)
        if crs != other:
            raise InputError(second, f"has another CRS ({shorten(other)}) than {first.name} ({shorten(crs)})", remedy)
        offset_px = _measure_offset_px(before, after)
        if offset_px > MAX_OFFSET_PX:
            raise InputError(second, f"is offset by {offset_px:.1f} px from {first.name}", remedy)


def _measure_offset_px(before: rasterio.io.DatasetReader, after: rasterio.io.DatasetReader) -> float:
    """Return how far the corners of the second raster are from those of the first, in px of the first."""
    corners = np.array([[0, after.width], [0, after.height], [1, 1]], dtype=np.float64)
    to_map, from_map = (np.array(raster.transform).reshape(3, 3) for raster in (after, before))
    return float(np.abs(np.linalg.solve(from_map, to_map @ corners) - corners).max())


# ------------------------------------------------------------------------------------------------ other bands than RGB
def measure_pairs_bands(pairs: Sequence[PairFiles], numbers: Sequence[int]) -> InputBands:
    """Measure mean and standard deviation of bands on both dates of pairs; hidden ground does not count.

    Args:
        pairs: those that are trained on.
        numbers: 1-based numbers of the bands.

    Raises:
        InputError: a file is missing or broken, lacks a band, or the pairs show nothing.
    """
    chosen = _spread_over(pairs)
    read = (_read_visible_values(path, pair, numbers) for pair in chosen for path in (pair.before, pair.after))
    images = [(len(values_NC), values_NC.mean(axis=0), values_NC.var(axis=0)) for values_NC in read if len(values_NC)]
    if not images:
        raise InputError(chosen[0].before, "shows nothing, as all training images do", "Check their no-data values")
    counts_I, means_IC, variances_IC = (np.array(of_images) for of_images in zip(*images, strict=True))
    mean_C = np.average(means_IC, axis=0, weights=counts_I)
    std_C = np.sqrt(np.average(variances_IC + (means_IC - mean_C) ** 2, axis=0, weights=counts_I))
    std_C[std_C == 0] = 1.0  # a constant band says nothing, whatever it is divided by
    return InputBands(tuple(numbers), tuple(mean_C.tolist()), tuple(std_C.tolist()), _find_source(chosen[0], numbers))


def _find_source(pair: PairFiles, numbers: Sequence[int]) -> tuple[int, ...] | None:
    """Return the numbers of bands of patches in the raster that they were cut from, where the patches tell."""
    source = read_source_bands(pair.before)
    return None if source is None or max(numbers) > len(source) else tuple(source[number - 1] for number in numbers)


def _read_visible_values(path: Path, pair: PairFiles, numbers: Sequence[int]) -> NDArray[np.float64]:
    """Return the values NC of an image, or of the pair's window of it, where it shows something, decimated."""
    values_HWC = read_bands(path, numbers, window_px=pair.window_px)
    visible_HW = np.isfinite(values_HWC).all(axis=2)
    opaque_HW = read_opaque(path, window_px=pair.window_px)
    if opaque_HW is not None:
        visible_HW &= opaque_HW
    step = max(1, max(visible_HW.shape) // MAX_SAMPLE_PX)
    return np.asarray(values_HWC[::step, ::step][visible_HW[::step, ::step]], np.float64)


# ------------------------------------------------------------------------------------------------ more than 8 bits
def measure_pairs_stretch(pairs: Sequence[PairFiles], *, held_out: Sequence[PairFiles] = ()) -> Stretch | None:
    """Measure one robust stretch on both dates of pairs; None where their images have 8 bits.

    Args:
        pairs: those that are trained on.
        held_out: those that are scored, which must have the same type and are not measured.

    Raises:
        InputError: some images have 8 bits and others more, or a file is missing or broken.
    """
    chosen, checked = _spread_over(pairs), _spread_over(held_out)
    deep = {path: holds_deep_values(path) for pair in (*chosen, *checked) for path in (pair.before, pair.after)}
    if not any(deep.values()):
        return None
    if not all(deep.values()):
        first, other = (next(path for path, is_deep in deep.items() if is_deep is wanted) for wanted in (True, False))
        raise InputError(
            other,
            f"has 8 bits per band, but {first.parent.name}/{first.name} of the same data set has more",
            "Give all images in one type; `semicdvl prepare` writes patches of 8 bits from any rasters",
        )
    return measure_stretch(*(_read_sample(path, pair) for pair in chosen for path in (pair.before, pair.after)))


def _spread_over(pairs: Sequence[PairFiles]) -> Sequence[PairFiles]:
    """Return at most `MAX_MEASURED_PAIRS` pairs, spread evenly over a list."""
    return pairs[:: max(1, -(-len(pairs) // MAX_MEASURED_PAIRS))]


def _read_sample(path: Path, pair: PairFiles) -> OverviewSample:
    """Read an image, or the pair's window of it, decimated."""
    window_px = None if path.suffix.lower() in PILLOW_SUFFIXES else pair.window_px
    values_CHW = read_values(path, window_px=window_px).transpose(2, 0, 1)
    step = max(1, max(values_CHW.shape[1:]) // MAX_SAMPLE_PX)
    values_CHW = values_CHW[:, ::step, ::step]
    valid_HW = np.isfinite(values_CHW).all(axis=0)
    for sentinel in find_sentinels(values_CHW):
        valid_HW &= (values_CHW != sentinel).all(axis=0)
    return OverviewSample(values_CHW, valid_HW, np.zeros(valid_HW.shape, bool))
