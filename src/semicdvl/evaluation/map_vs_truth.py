"""Compare a result of `detect` with the truth, polygons or a mask raster, by pixel and by object, strip by strip.

Pixels are those of `change.tif`; objects are the rows of `changes.gpkg` and those of the truth (rows of a layer, or the
8-connected regions of a mask). Pixels without data in either, or outside the given area, do not count. The truth is
rasterised on the grid of the result, so an object smaller than a pixel may cover none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from semicdvl.data.images.files import PILLOW_SUFFIXES, open_image_raster
from semicdvl.data.images.reading import read_image_size
from semicdvl.data.labels.files import read_stored_label
from semicdvl.data.labels.masks import decode_label
from semicdvl.data.labels.stored import StoredLabel, read_stored_raster
from semicdvl.data.prepare.polygon_files import VECTOR_SUFFIXES
from semicdvl.data.prepare.polygon_layer import PolygonLayer, read_polygons
from semicdvl.detection.run_record import read_run_record
from semicdvl.errors import InputError
from semicdvl.metrics.change import ConfusionCounts
from semicdvl.metrics.objects import ObjectMatches, ObjectOverlaps
from semicdvl.raster.connected_components import find_objects
from semicdvl.raster.grid import Grid
from semicdvl.raster.io.open_dataset import check_numeric
from semicdvl.raster.vector.files import CHANGES_LAYER
from semicdvl.raster.vector.reading import list_layers, read_layer_info
from semicdvl.reading.regular_files import require_file_or_folder
from semicdvl.types import IGNORE

STRIP_PX = 2**23
"""About the number of pixels that are compared at a time."""
ARCHIVE_SUFFIXES = frozenset({".zip", ".kmz", ".gdb"})
"""Files and folders that are asked for layers at once."""
UNKNOWN_TRUTH = 128
"""Value of a mask file where the truth is not known, as in patches of `semicdvl prepare`."""


class Truth(Protocol):
    """Reference data, read strip by strip."""

    @property
    def count(self) -> int:
        """Number of objects."""
        ...

    def read_strip(self, grid: Grid, row: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Return 0, 1, IGNORE and object numbers from 1, both HW, of the rows that `grid` covers from `row` on."""
        ...


@dataclass(frozen=True)
class PolygonTruth:
    """Polygons; what they cover has changed."""

    polygons: PolygonLayer

    @property
    def count(self) -> int:
        """Number of polygons."""
        return len(self.polygons)

    def read_strip(self, grid: Grid, row: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Rasterise the polygons in a strip."""
        numbers_HW = self.polygons.rasterize_numbers(grid)
        truth_HW = (numbers_HW > 0).astype(np.uint8)
        truth_HW[self.polygons.rasterize_unknown(grid) & (numbers_HW == 0)] = IGNORE
        return truth_HW, numbers_HW


@dataclass(frozen=True)
class MaskTruth:
    """A mask on the grid of the result, with its regions, in memory."""

    mask_HW: NDArray[np.uint8]
    numbers_HW: NDArray[np.int32]
    count: int

    def read_strip(self, grid: Grid, row: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Return the rows of a strip."""
        rows = slice(row, row + grid.height)
        return self.mask_HW[rows], self.numbers_HW[rows]


@dataclass(frozen=True)
class DetectedMap:
    """A result of `detect`.

    Attributes:
        out: the folder.
        grid: of `change.tif`.
        gsd_m: metres per pixel, None if not known.
        objects: its polygons; None if there are none.
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
    """The comparison of a result with the truth.

    Attributes:
        pixels: counts of the pixels that are known in both.
        objects: matches of the objects; numbers are rows of `DetectedMap.objects` and of the truth, + 1.
    """

    pixels: ConfusionCounts
    objects: ObjectMatches


def compare_with_truth(
    result: DetectedMap, truth: Truth, *, area: PolygonLayer | None = None, min_iou: float = 0.5
) -> MapComparison:
    """Count pixels and match objects.

    Args:
        result: the result.
        truth: the reference data.
        area: polygons of the area that counts; None: everywhere.
        min_iou: IoU from which two objects match.

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
            "has no pixel with data where the truth is known",
            "Check that both show the same place, and --area",
        )
    return MapComparison(pixels, overlaps.match(min_iou=min_iou))


def mask_counted_pixels(change_HW: NDArray[np.uint8], grid: Grid, area: PolygonLayer | None) -> NDArray[np.bool_]:
    """Return which pixels of a strip count."""
    known_HW: NDArray[np.bool_] = change_HW != IGNORE
    return known_HW if area is None else known_HW & area.rasterize_mask(grid)


# ------------------------------------------------------------------------------------------------ reading
def read_detected_map(out: Path) -> DetectedMap:
    """Open a result of `detect`.

    Raises:
        InputError: it is not a result, or a file in it is missing or damaged.
    """
    out = Path(out)
    remedy = "Give a folder that `semicdvl detect` wrote"
    if not out.is_dir():
        raise InputError(out, "is not a folder", remedy)
    record = read_run_record(out)
    with open_image_raster(out / "change.tif") as raster:
        grid = Grid(raster.crs, raster.transform, raster.height, raster.width)
    return DetectedMap(out, grid, record.grid.gsd_m, _read_objects(out / "changes.gpkg", grid))


def _read_objects(path: Path, grid: Grid) -> PolygonLayer | None:
    """Read the polygons of a result, None if there are none."""
    try:
        features = read_layer_info(path, layer=CHANGES_LAYER)["features"]
    except (DataSourceError, DataLayerError) as error:
        raise InputError(path, "is missing or damaged", "Run `semicdvl detect` again") from error
    return read_polygons(path, grid=grid, layer=CHANGES_LAYER) if features else None


def is_vector(path: Path) -> bool:
    """Tell whether a file is read as polygons: by its suffix, or, where GDAL finds no image in it, by its layers."""
    require_file_or_folder(path, remedy="Give a file of polygons, or a mask")
    if path.suffix.lower() in VECTOR_SUFFIXES:
        return True
    if path.is_file() and path.suffix.lower() not in ARCHIVE_SUFFIXES:
        with suppress(InputError), open_image_raster(path):
            return False
    try:
        return path.exists() and any(kind is not None for _, kind in list_layers(path))
    except (DataSourceError, DataLayerError, InputError):
        return False


def read_truth(
    path: Path,
    *,
    grid: Grid,
    layer: str | None = None,
    label_values: Mapping[int, int] | None = None,
    nodata: int | None = None,
) -> Truth:
    """Read the truth for a grid: polygons, or a mask, see `data.labels.masks` (128 and no data: not known).

    A mask with a CRS is warped to the grid (nearest neighbour); one without must have the size of the grid.

    Args:
        path: the file.
        grid: of the result.
        layer: of the polygons, where the file has several.
        label_values: what the values of a mask mean; None: 0 unchanged, 1 or 255 changed.
        nodata: value of a mask where the truth is not known.

    Raises:
        InputError: the file cannot be used, does not overlap the grid, or no unchanged pixel is known.
    """
    path = Path(path)
    if is_vector(path):
        return PolygonTruth(read_polygons(path, grid=grid, layer=layer))
    mask_HW = _read_mask(path, grid, _ValueMeanings(label_values, nodata))
    objects = find_objects(mask_HW)
    return MaskTruth(mask_HW, objects.labels_HW, len(objects))


@dataclass(frozen=True)
class _ValueMeanings:
    """What the user said about the values of a mask."""

    label_values: Mapping[int, int] | None
    nodata: int | None

    def decode(self, stored: StoredLabel) -> NDArray[np.uint8]:
        """Translate the values of a mask into 0, 1, IGNORE."""
        unknown = frozenset({UNKNOWN_TRUTH} if self.nodata is None else {UNKNOWN_TRUTH, self.nodata})
        values = self.label_values
        if values is not None and self.nodata is not None:
            values = {**values, self.nodata: IGNORE}
        return decode_label(stored, label_values=values, unknown_values=unknown)


def _read_mask(path: Path, grid: Grid, meanings: _ValueMeanings) -> NDArray[np.uint8]:
    """Return a mask on the grid: 0, 1, IGNORE."""
    remedy = "Give a mask as a GeoTIFF or PNG, or polygons as a GeoPackage, GeoJSON or Shapefile"
    with open_image_raster(path, remedy=remedy) as raster:
        check_numeric([dtype for dtype in raster.dtypes if dtype.startswith("complex")], path)
        if raster.crs is None or grid.crs is None:
            mask_HW = _read_plain_mask(path, raster, grid, meanings)
        else:
            mask_HW = meanings.decode(_read_warped(path, raster, grid))
    if (mask_HW == IGNORE).all():
        raise InputError(path, "does not overlap the result", "Give a mask of the same place")
    if not (mask_HW == 0).any():
        raise InputError(
            path,
            "says of no pixel of the result that it is unchanged, so false alarms cannot be counted",
            "Give a mask of changed and unchanged pixels, or say what its values mean with"
            " --label-values 255=changed,0=unchanged",
        )
    return mask_HW


def _read_plain_mask(
    path: Path, raster: rasterio.io.DatasetReader, grid: Grid, meanings: _ValueMeanings
) -> NDArray[np.uint8]:
    """Read a mask that lies on the result pixel by pixel."""
    height, width = read_image_size(path)
    if (height, width) != (grid.height, grid.width):
        here, there = f"{width} x {height} px", f"{grid.width} x {grid.height} px"
        remedy = "Without a CRS in both, mask and result must have the same pixels"
        raise InputError(path, f"is {here}, but the result is {there}, and not both have a CRS", remedy)
    if path.suffix.lower() in PILLOW_SUFFIXES:
        return meanings.decode(read_stored_label(path))
    return meanings.decode(_read_stored(path, lambda: read_stored_raster(path, raster, None)))


def _read_warped(path: Path, raster: rasterio.io.DatasetReader, grid: Grid) -> StoredLabel:
    """Read a mask on the grid of the result; ground outside the file is transparent."""
    with WarpedVRT(
        raster,
        crs=grid.crs,
        transform=grid.transform,
        height=grid.height,
        width=grid.width,
        resampling=Resampling.nearest,
        src_nodata=None,  # a tag on 0 would hide all that is unchanged; `decode_label` looks at it
        nodata=None,
        add_alpha=ColorInterp.alpha not in raster.colorinterp,  # otherwise ground outside would read as unchanged
    ) as view:
        return _read_stored(path, lambda: read_stored_raster(path, view, None, source=raster))


def _read_stored(path: Path, read: Callable[[], StoredLabel]) -> StoredLabel:
    """Read the pixels of a mask, as `InputError` where that fails."""
    try:
        return read()
    except RasterioError as error:
        raise InputError(path, f"pixels cannot be read ({error})", "Copy or make it again") from error


def _read_mask_window(path: Path, raster: rasterio.io.DatasetReader, window: Window) -> NDArray[np.uint8]:
    """Read a window of a result's own change map and translate its values."""
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
        raise InputError(path, f"holds the values {some}, which are not those of a mask", remedy)
    return np.where(valid_HW & known_HW, changed_HW, IGNORE).astype(np.uint8)
