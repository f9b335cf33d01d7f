"""A stratified random sample of places of a change map, for accuracies and areas of the whole map.

A place is a pixel of the map. `write_sample` writes their outlines for a GIS, where the column `truth` is filled with 0
(unchanged) or 1 (changed); `read_sample` reads such a layer, or points with that column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from semicdvl.data.prepare.polygon_files import PARQUET_SUFFIXES
from semicdvl.data.prepare.polygon_layer import PolygonLayer
from semicdvl.data.prepare.polygon_projection import project_shapes
from semicdvl.errors import DataError, InputError
from semicdvl.evaluation.map_vs_truth import DetectedMap, Truth, is_vector, mask_counted_pixels
from semicdvl.metrics.area_adjusted import AreaAccuracy, allocate_sample, estimate_area_accuracy
from semicdvl.raster.vector.files import write_vector
from semicdvl.raster.vector.reading import list_layers, read_layer, read_layer_info
from semicdvl.types import IGNORE

MIN_PLACES_PER_CLASS = 50
"""Smallest number of places in each class (`metrics.area_adjusted.allocate_sample`)."""
TRUTH_COLUMN = "truth"
"""Column with the truth: 0 unchanged, 1 changed."""
MAP_COLUMN = "map"
"""Column with the class on the map from which the places were drawn."""


@dataclass(frozen=True)
class StratifiedSample:
    """Places of a map, row by row.

    Attributes:
        rows_N: rows of the pixels.
        cols_N: columns of the pixels.
        mapped_N: class on the map: 0 unchanged, 1 changed.
        truth_N: class in truth; IGNORE where it is not known.
        class_px: pixels of the map in each class.
        moved_count: places that had another class on the map from which they were drawn. They are no random sample of
            the classes of this one, whose accuracy and areas they do not tell.
    """

    rows_N: NDArray[np.int64]
    cols_N: NDArray[np.int64]
    mapped_N: NDArray[np.uint8]
    truth_N: NDArray[np.uint8]
    class_px: tuple[int, int]
    moved_count: int = 0

    @property
    def checked_count(self) -> int:
        """Number of places whose truth is known."""
        return int((self.truth_N != IGNORE).sum())

    def estimate_accuracy(self, *, pixel_m2: float | None) -> AreaAccuracy:
        """Estimate accuracies and areas from the checked places; areas are in pixels where `pixel_m2` is None."""
        known_N = self.truth_N != IGNORE
        cells = np.bincount(2 * self.mapped_N[known_N] + self.truth_N[known_N], minlength=4)
        unit = 1.0 if pixel_m2 is None else pixel_m2
        return estimate_area_accuracy(
            cells.reshape(2, 2).astype(np.int64), mapped=[size * unit for size in self.class_px]
        )


def draw_stratified_sample(
    result: DetectedMap, *, total: int, seed: int, area: PolygonLayer | None = None, truth: Truth | None = None
) -> StratifiedSample:
    """Draw pixels at random within each class of the map, and look up their truth.

    Args:
        result: the map.
        total: number of pixels, see `metrics.area_adjusted.allocate_sample`.
        seed: seed of the sampling.
        area: polygons of the area that counts; None: everywhere.
        truth: the reference data; pixels where it is not known do not count. None: no truth is known yet.
    """
    sizes = [0, 0]
    for _, classes_HW, _ in _read_class_strips(result, area, truth):
        sizes = [size + int((classes_HW == value).sum()) for value, size in enumerate(sizes)]
    rng = np.random.default_rng(seed)
    chosen = [
        np.sort(rng.choice(size, count, replace=False)) if count else np.zeros(0, np.int64)
        for size, count in zip(sizes, allocate_sample(sizes, total, minimum=MIN_PLACES_PER_CLASS), strict=True)
    ]
    found: list[NDArray[np.int64]] = []
    passed = [0, 0]
    for row, classes_HW, truth_HW in _read_class_strips(result, area, truth):
        for value in (0, 1):
            places = np.flatnonzero(classes_HW == value)
            here = chosen[value] - passed[value]
            at = places[here[(here >= 0) & (here < len(places))]]
            passed[value] += len(places)
            rows, cols = np.divmod(at, classes_HW.shape[1])
            found.append(np.stack([rows + row, cols, np.full_like(at, value), truth_HW.ravel()[at]]))
    rows_N, cols_N, mapped_N, truth_N = np.concatenate(found, axis=1)
    return StratifiedSample(rows_N, cols_N, mapped_N.astype(np.uint8), truth_N.astype(np.uint8), (sizes[0], sizes[1]))


def _read_class_strips(
    result: DetectedMap, area: PolygonLayer | None, truth: Truth | None
) -> Iterator[tuple[int, NDArray[np.uint8], NDArray[np.uint8]]]:
    """Yield strips: first row, class on the map (IGNORE where it does not count) and in truth, both HW."""
    for row, grid in result.list_strips():
        change_HW = result.read_change(row, grid.height)
        known_HW = mask_counted_pixels(change_HW, grid, area)
        truth_HW = np.full_like(change_HW, IGNORE)
        if truth is not None:
            truth_HW, _ = truth.read_strip(grid, row)
            known_HW &= truth_HW != IGNORE
        yield row, np.where(known_HW, change_HW, IGNORE).astype(np.uint8), truth_HW


# ------------------------------------------------------------------------------------------------ files
def write_sample(path: Path, sample: StratifiedSample, result: DetectedMap) -> None:
    """Write the places as outlines of their pixels, with the class on the map and an empty column for the truth.

    The places are in random order, so that an interpreter does not see the classes one after the other.
    """
    order = np.random.default_rng(len(sample.rows_N)).permutation(len(sample.rows_N))
    grids = [result.grid.window(int(sample.rows_N[i]), int(sample.cols_N[i]), 1, 1) for i in order]
    truth = pd.array([None if value == IGNORE else int(value) for value in sample.truth_N[order]], dtype="Int32")
    frame = gpd.GeoDataFrame(
        {"id": np.arange(1, len(order) + 1), MAP_COLUMN: sample.mapped_N[order].astype(np.int32), TRUTH_COLUMN: truth},
        geometry=[shapely.MultiPolygon([shapely.box(*grid.bounds)]) for grid in grids],
        crs=None if result.grid.crs is None else result.grid.crs.to_wkt(),
    )
    write_vector(path, frame, layer="sample")


def is_sample(path: Path) -> bool:
    """Tell whether a file is a layer of checked places, with a column `truth`."""
    if not is_vector(path) or path.suffix.lower() in PARQUET_SUFFIXES or not path.is_file():
        return False
    try:
        layers = list_layers(path)
        return len(layers) > 0 and TRUTH_COLUMN in read_layer_info(path, layer=layers[0][0])["fields"]
    except (DataSourceError, DataLayerError, InputError):
        return False  # `read_polygons` reports it


def read_sample(path: Path, result: DetectedMap, *, area: PolygonLayer | None = None) -> StratifiedSample:
    """Read checked places; the class on the map is taken from the result, not from the file.

    Raises:
        InputError: the CRS of the file does not fit, or no checked place is on the map.
        DataError: the column holds other values than 0, 1 and nothing.
    """
    try:
        frame = read_layer(path)
    except (DataSourceError, DataLayerError, ValueError, shapely.errors.ShapelyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(path, f"is not a sample that can be read ({reason})", "Draw the sample again") from error
    if (frame.crs is None) != (result.grid.crs is None):
        raise InputError(path, "only one of sample and result has a CRS", "Give both, or neither, a CRS")
    if result.grid.crs is not None:
        frame = project_shapes(path, frame, result.grid.crs.to_wkt())
    values = pd.to_numeric(frame[TRUTH_COLUMN], errors="coerce")
    strange = frame[TRUTH_COLUMN].notna() & ~values.isin([0, 1])
    if strange.any():
        value = frame.loc[strange, TRUTH_COLUMN].iloc[0]
        raise DataError(
            f"{path}: the column '{TRUTH_COLUMN}' holds {value}. Write 0 (unchanged), 1 (changed) or nothing."
        )
    centres = shapely.centroid(np.asarray(frame.geometry.to_numpy(), object))
    at_N2 = shapely.get_coordinates(centres)
    if len(at_N2) != len(frame):
        raise InputError(path, "has rows without geometry", "Delete them, or draw the sample again")
    cols_N, rows_N = (np.floor(axis).astype(np.int64) for axis in ~result.grid.transform @ (at_N2[:, 0], at_N2[:, 1]))
    truth_N = values.fillna(IGNORE).to_numpy().astype(np.uint8)
    drawn_N = np.full(len(frame), IGNORE, np.uint8)
    if MAP_COLUMN in frame:
        of_map = pd.to_numeric(frame[MAP_COLUMN], errors="coerce")
        drawn_N = of_map.where(of_map.isin([0, 1]), IGNORE).to_numpy().astype(np.uint8)
    return _look_up_classes(path, result, area, (rows_N, cols_N), truth_N, drawn_N)


def _look_up_classes(
    path: Path,
    result: DetectedMap,
    area: PolygonLayer | None,
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    truth_N: NDArray[np.uint8],
    drawn_N: NDArray[np.uint8],
) -> StratifiedSample:
    """Look up the class of each place (rows and columns) on the map; places outside of it are dropped.

    The class that a place was drawn from is IGNORE where it is not known.
    """
    rows_N, cols_N = places
    mapped_N = np.full(len(rows_N), IGNORE, np.uint8)
    sizes = [0, 0]
    for row, classes_HW, _ in _read_class_strips(result, area, None):
        height, width = classes_HW.shape
        sizes = [size + int((classes_HW == value).sum()) for value, size in enumerate(sizes)]
        here_N = (rows_N >= row) & (rows_N < row + height) & (cols_N >= 0) & (cols_N < width)
        mapped_N[here_N] = classes_HW[rows_N[here_N] - row, cols_N[here_N]]
    on_N = mapped_N != IGNORE
    moved = int((on_N & (drawn_N != IGNORE) & (drawn_N != mapped_N)).sum())
    sample = StratifiedSample(rows_N[on_N], cols_N[on_N], mapped_N[on_N], truth_N[on_N], (sizes[0], sizes[1]), moved)
    if not sample.checked_count:
        remedy = f"Fill the column '{TRUTH_COLUMN}' with 0 (unchanged) or 1 (changed)"
        raise InputError(path, f"none of its places ({len(rows_N)}) is on the map and checked", remedy)
    return sample
