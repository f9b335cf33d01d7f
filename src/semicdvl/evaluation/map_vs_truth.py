"""A `detect` result against the truth: polygons or a mask raster, by pixel and by object, strip by strip.

Pixels are those of `change.tif`, objects those of `changes.gpkg` (rows) against the truth's own (rows of a layer, or
the 8-connected regions of a mask). A pixel without data in either, or outside the area that is asked for, counts
nowhere. The truth is laid onto the pixels of the result, so an object smaller than a pixel may have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyogrio
import rasterio
from numpy.typing import NDArray
from pyogrio.errors import DataSourceError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from semicdvl.atomic_files import read_json
from semicdvl.data.images import open_image_raster
from semicdvl.data.prepare.polygon_layer import VECTOR_SUFFIXES, PolygonLayer, read_polygons
from semicdvl.detection.output_folder import DETECTION_FORMAT
from semicdvl.errors import InputError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import ObjectMatches, ObjectOverlaps
from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.files import CHANGES_LAYER
from semicdvl.types import IGNORE

STRIP_PX = 2**23
"""About so many pixels are compared at a time."""
UNKNOWN_TRUTH = 128
"""Value in a mask file where the truth is not known; as in patches of `semicdvl prepare`."""


class Truth(Protocol):
    """What the comparison wants of the truth and of the result's objects."""

    @property
    def count(self) -> int:
        """Number of objects."""
        ...

    def read_strip(self, grid: Grid, row: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Return 0, 1, IGNORE and object numbers from 1, both HW, of the rows that `grid` covers from `row` on."""
        ...


@dataclass(frozen=True)
class PolygonTruth:
    """Polygons: changed is what they cover."""

    polygons: PolygonLayer

    @property
    def count(self) -> int:
        """Number of polygons."""
        return len(self.polygons)

    def read_strip(self, grid: Grid, row: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Burn the polygons of a strip."""
        numbers_HW = self.polygons.rasterize_numbers(grid)
        return (numbers_HW > 0).astype(np.uint8), numbers_HW


@dataclass(frozen=True)
class MaskTruth:
    """A mask on the result's grid, whole in memory, with its regions."""

    mask_HW: NDArray[np.uint8]
    numbers_HW: NDArray[np.int32]
    count: int

    def read_strip(self, grid: Grid, row: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Cut the rows of a strip."""
        rows = slice(row, row + grid.height)
        return self.mask_HW[rows], self.numbers_HW[rows]


@dataclass(frozen=True)
class DetectedMap:
    """A folder that `detect` wrote.

    Attributes:
        out: the folder.
        grid: of `change.tif`.
        gsd_m: metres per pixel, None if not known.
        objects: its polygons; None if it found nothing.
    """

    out: Path
    grid: Grid
    gsd_m: float | None
    objects: PolygonLayer | None

    def read_change(self, row: int, height: int) -> NDArray[np.uint8]:
        """Return rows of the change map: 0, 1, IGNORE."""
        with open_image_raster(self.out / "change.tif") as raster:
            window = Window(0, row, self.grid.width, height)
            return _read_mask_window(self.out / "change.tif", raster, window)

    def list_strips(self) -> Iterator[tuple[int, Grid]]:
        """Yield (first row, grid) of strips from the top."""
        rows = max(1, STRIP_PX // self.grid.width)
        for row in range(0, self.grid.height, rows):
            yield row, self.grid.window(row, 0, min(rows, self.grid.height - row), self.grid.width)


@dataclass(frozen=True)
class MapComparison:
    """What a result and the truth have in common.

    Attributes:
        pixels: counts of the pixels that are known in both.
        objects: what became of each object; numbers are rows of `DetectedMap.objects` and of the truth, + 1.
    """

    pixels: ConfusionCounts
    objects: ObjectMatches


def compare_with_truth(
    result: DetectedMap, truth: Truth, *, area: PolygonLayer | None = None, min_iou: float = 0.5
) -> MapComparison:
    """Count pixels and match objects.

    Args:
        result: what was found.
        truth: what there is.
        area: ground that counts; None: all of it.
        min_iou: IoU from which two objects are one.

    Raises:
        InputError: no pixel is known in both.
    """
    pixels = ConfusionCounts()
    overlaps = ObjectOverlaps(len(result.objects or ()), truth.count)
    for row, grid in result.list_strips():
        change_HW = result.read_change(row, grid.height)
        truth_HW, real_HW = truth.read_strip(grid, row)
        counted_HW = mask_counted_pixels(change_HW, grid, area) & (truth_HW != IGNORE)
        pixels += ConfusionCounts.from_maps(change_HW[counted_HW], truth_HW[counted_HW])
        found_HW = result.objects.rasterize_numbers(grid) if result.objects else np.zeros_like(real_HW)
        overlaps.add(found_HW * counted_HW, real_HW * counted_HW)
    if not pixels.total:
        raise InputError(
            result.out,
            "has no pixel with data on which the truth is known",
            "Check that both are of the same place, and --area",
        )
    return MapComparison(pixels, overlaps.match(min_iou=min_iou))


def mask_counted_pixels(change_HW: NDArray[np.uint8], grid: Grid, area: PolygonLayer | None) -> NDArray[np.bool_]:
    """Return which pixels of a strip of the result count."""
    known_HW: NDArray[np.bool_] = change_HW != IGNORE
    return known_HW if area is None else known_HW & area.rasterize_mask(grid)


# ------------------------------------------------------------------------------------------------ reading
def read_detected_map(out: Path) -> DetectedMap:
    """Open a folder that `detect` wrote.

    Raises:
        InputError: it is none, or a file in it is missing or damaged.
    """
    out = Path(out)
    remedy = "Give a folder that `semicdvl detect` wrote"
    if not out.is_dir():
        raise InputError(out, "is no folder", remedy)
    record = read_json(out / "run.json", remedy=remedy)
    if not isinstance(record, dict) or record.get("format") != DETECTION_FORMAT:
        raise InputError(out, "holds no result of `detect`", remedy)
    with open_image_raster(out / "change.tif") as raster:
        grid = Grid(raster.crs, raster.transform, raster.height, raster.width)
    gsd_m = record.get("grid", {}).get("gsd_m")
    return DetectedMap(out, grid, None if gsd_m is None else float(gsd_m), _read_objects(out / "changes.gpkg", grid))


def _read_objects(path: Path, grid: Grid) -> PolygonLayer | None:
    """Read the polygons of a result, None if there are none."""
    try:
        features = pyogrio.read_info(path, layer=CHANGES_LAYER)["features"]
    except DataSourceError as error:
        raise InputError(path, "is missing or damaged", "Run `semicdvl detect` again") from error
    return read_polygons(path, grid=grid, layer=CHANGES_LAYER) if features else None


def is_vector(path: Path) -> bool:
    """Tell whether a file is taken for polygons; anything else is a mask raster."""
    return path.suffix.lower() in VECTOR_SUFFIXES


def read_truth(path: Path, *, grid: Grid, layer: str | None = None) -> Truth:
    """Read the truth for a grid: polygons, or a mask of 0 and 255 (or 0 and 1; 128 and no data: not known).

    A mask with a CRS is laid onto the grid pixel by pixel (nearest); one without must have the grid's size.

    Raises:
        InputError: the file cannot be used, or lies elsewhere.
    """
    path = Path(path)
    if is_vector(path):
        return PolygonTruth(read_polygons(path, grid=grid, layer=layer))
    mask_HW = _read_mask(path, grid)
    objects = find_objects(mask_HW)
    return MaskTruth(mask_HW, objects.labels_HW, len(objects))


def _read_mask(path: Path, grid: Grid) -> NDArray[np.uint8]:
    """Return a mask on the grid: 0, 1, IGNORE."""
    with open_image_raster(path) as raster:
        if raster.count != 1:
            remedy = "Give one band of 0 (unchanged) and 255 (changed), or polygons"
            raise InputError(path, f"has {raster.count} bands, a mask has one", remedy)
        if raster.crs is None or grid.crs is None:
            if (raster.height, raster.width) != (grid.height, grid.width):
                here, there = f"{raster.width} x {raster.height} px", f"{grid.width} x {grid.height} px"
                remedy = "Without a CRS in both, mask and result must have the same pixels"
                raise InputError(path, f"is {here}, the result {there}, and not both have a CRS", remedy)
            return _read_mask_window(path, raster, Window(0, 0, grid.width, grid.height))
        with WarpedVRT(
            raster,
            crs=grid.crs,
            transform=grid.transform,
            height=grid.height,
            width=grid.width,
            resampling=Resampling.nearest,
            add_alpha=raster.nodata is None,  # otherwise ground outside the file would read as unchanged
        ) as view:
            mask_HW = _read_mask_window(path, view, Window(0, 0, grid.width, grid.height))
    if (mask_HW == IGNORE).all():
        raise InputError(path, "shows nothing of the ground of the result", "Give a mask of the same place")
    return mask_HW


def _read_mask_window(path: Path, raster: rasterio.io.DatasetReader, window: Window) -> NDArray[np.uint8]:
    """Read a window of a mask and translate its values."""
    try:
        values_HW = raster.read(1, window=window)
        valid_HW = raster.dataset_mask(window=window) > 0
    except RasterioError as error:
        raise InputError(path, f"pixels cannot be read ({error})", "Copy or make it again") from error
    changed_HW = (values_HW == 1) | (values_HW == 255)
    known_HW = changed_HW | (values_HW == 0)
    strange_HW = valid_HW & ~known_HW & (values_HW != UNKNOWN_TRUTH)
    if strange_HW.any():
        some = ", ".join(str(value) for value in np.unique(values_HW[strange_HW])[:4])
        remedy = "Write 0 for unchanged, 1 or 255 for changed, 128 for not known"
        raise InputError(path, f"holds the values {some}, which no mask has", remedy)
    return np.where(valid_HW & known_HW, changed_HW, IGNORE).astype(np.uint8)
