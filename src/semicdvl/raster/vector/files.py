"""A change map -> one row per changed object, with what an analyst sorts and filters by, and a file of it."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
import pyogrio
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.features import shapes
from shapely import MultiPolygon, get_parts
from shapely.geometry import shape

from semicdvl.atomic_files import write_atomically
from semicdvl.errors import ConfigError, MissingExtraError
from semicdvl.raster.grid import WGS84, Grid
from semicdvl.raster.io.cog import translate_gdal_errors
from semicdvl.raster.vector.qgis_style import QgisStyle, build_qml, store_default_style
from semicdvl.raster.vector.simplify import SimplifySettings, measure_map_unit_m, simplify_polygons

VECTOR_DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf", ".parquet": "GeoParquet"}
CHANGE_KINDS = ("appeared", "disappeared", "replaced", "changed")
NO_SIMPLIFICATION = SimplifySettings()
CHANGES_LAYER = "changes"
"""Layer of the objects; beside it a GeoPackage has one for QGIS, with the style."""
FIXED_TIMESTAMP = "1970-01-01T00:00:00Z"
"""What a GeoPackage says in place of the time of writing; run.json knows that."""


@dataclass(frozen=True)
class LabelledObjects:
    """The changed objects of a map.

    Attributes:
        labels_HW: int32, 0 = unchanged, 1 ... N = the objects, 8-connected, numbered from the top left.
        area_px: int64 N+1, pixels of each label; index 0 is the rest.
    """

    labels_HW: NDArray[np.int32]
    area_px: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.area_px) - 1


@dataclass(frozen=True)
class ObjectAttributes:
    """What is known about every object beside its outline; all of the same length N, object `id` at `id` - 1.

    Attributes:
        area_px: int64 N, pixels.
        score: float64 N, mean score.
        score_max: float64 N, greatest score.
        from_class: class at date 1, None where none is known.
        to_class: class at date 2.
        probability: float64 N, of change; NaN where not known. None for a route without.
    """

    area_px: NDArray[np.int64]
    score: NDArray[np.float64]
    score_max: NDArray[np.float64]
    from_class: Sequence[int | None]
    to_class: Sequence[int | None]
    probability: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.area_px)


def find_objects(change_HW: NDArray[np.uint8], *, min_area_px: float = 0) -> LabelledObjects:
    """Label the 8-connected objects (value 1) of a map; objects smaller than `min_area_px` are left out."""
    changed_HW = (change_HW == 1).astype(np.uint8)
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(changed_HW, connectivity=8)
    area_px = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    keep = area_px >= min_area_px
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    kept_HW: NDArray[np.int32] = renumbered[labels_HW] if count > 1 else np.zeros(change_HW.shape, np.int32)
    return LabelledObjects(kept_HW, np.concatenate([[change_HW.size - area_px[keep].sum()], area_px[keep]]))


def build_object_frame(
    objects: LabelledObjects,
    *,
    grid: Grid,
    score_HW: NDArray[np.float32],
    t1_HW: NDArray[np.uint8] | None = None,
    t2_HW: NDArray[np.uint8] | None = None,
    classes: Sequence[str] = (),
    foreground: Sequence[int] = (),
    gsd_m: float | None = None,
) -> gpd.GeoDataFrame:
    """Return one row per object, largest first: its outline along the pixels' edges and what is known about it.

    Columns: `id` (value in `objects.labels_HW`), `area_m2` and `perimeter_m`, `score` (mean) and `score_max`,
    `from_class` and `to_class` (the most frequent class of each date; None for a route without classes), `kind`:
    appeared (background -> foreground), disappeared, replaced (foreground -> foreground) or changed (not known).

    Areas and perimeters are measured on the map where its units are metres on the ground, otherwise (degrees, Web
    Mercator) along geodesics. Without a CRS they are pixels, in columns `area_px` and `perimeter_px`, unless
    `gsd_m` gives the size of a pixel. `compactness` is 4 pi area / perimeter^2 of the outline (Polsby and Popper): 1
    for a disc, 0.79 for a square, near 0 for a thin line. The perimeter includes holes and follows the pixels' edges:
    longer than a smoothed outline.
    """
    start, end = (find_majority_classes(objects, classes_HW, len(classes), foreground) for classes_HW in (t1_HW, t2_HW))
    known = ObjectAttributes(objects.area_px[1:], *score_objects(objects, score_HW), start, end)
    geometry = _polygonise_objects(objects, grid)
    return assemble_object_frame(geometry, known, grid=grid, classes=classes, foreground=foreground, gsd_m=gsd_m)


def assemble_object_frame(
    geometry: Sequence[MultiPolygon],
    attributes: ObjectAttributes,
    *,
    grid: Grid,
    classes: Sequence[str] = (),
    foreground: Sequence[int] = (),
    gsd_m: float | None = None,
    simplify: SimplifySettings = NO_SIMPLIFICATION,
) -> gpd.GeoDataFrame:
    """Return the rows of `polygons` for outlines on the map and what is known of the objects, however it was found.

    With `simplify` the geometry is drawn with fewer corners or with right angles; perimeter and compactness are those
    of
    the drawn outline, the area stays that of the object's pixels, so that areas add up to the map's.
    """
    area, perimeter, unit = measure_polygons(geometry, grid=grid, gsd_m=gsd_m)
    drawn, drawn_area = simplify_polygons(geometry, simplify, grid=grid, gsd_m=gsd_m), area
    if simplify:
        drawn_area, perimeter, _ = measure_polygons(drawn, grid=grid, gsd_m=gsd_m)
    frame = gpd.GeoDataFrame(
        {
            "id": np.arange(1, len(attributes) + 1),
            "kind": [
                classify_change(a, b, foreground)
                for a, b in zip(attributes.from_class, attributes.to_class, strict=True)
            ],
            "from_class": [None if a is None else classes[a] for a in attributes.from_class],
            "to_class": [None if b is None else classes[b] for b in attributes.to_class],
            f"area_{unit}{'2' if unit == 'm' else ''}": area,
            f"perimeter_{unit}": perimeter,
            "compactness": np.round(4 * np.pi * drawn_area / np.maximum(perimeter, 1e-12) ** 2, 4),
            "score": attributes.score,
            "score_max": attributes.score_max,
            **({} if attributes.probability is None else {"probability": attributes.probability}),
        },
        geometry=drawn,
        crs=None if grid.crs is None else grid.crs.to_wkt(),
    )
    column = "area_m2" if unit == "m" else "area_px"
    return frame.sort_values([column, "id"], ascending=[False, True], ignore_index=True)


def _polygonise_objects(objects: LabelledObjects, grid: Grid) -> list[MultiPolygon]:
    """Return the outline of every object.

    Traced 4-connected, because 8-connected outlines touch themselves at corners, which no GIS takes for valid; the
    pieces of one object are joined to one multi-polygon.
    """
    pieces: list[list[Any]] = [[] for _ in range(len(objects))]
    found = shapes(objects.labels_HW, mask=objects.labels_HW > 0, connectivity=4, transform=grid.transform)
    for outline, label in found:
        pieces[int(label) - 1].append(shape(outline))
    return [MultiPolygon(list(get_parts(parts))) for parts in pieces]


def measure_polygons(
    geometry: Sequence[MultiPolygon], *, grid: Grid, gsd_m: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return areas, perimeters (holes included) and their unit ("m" or "px") of outlines on the map."""
    if grid.crs is None or grid.has_true_scale:
        unit_m = float(measure_map_unit_m(grid, gsd_m=gsd_m)[0])
        area = np.array([outline.area for outline in geometry], np.float64) * unit_m**2
        perimeter = np.array([outline.length for outline in geometry], np.float64) * unit_m
        return area, perimeter, "px" if grid.crs is None and gsd_m is None else "m"
    geod = Geod(ellps="WGS84")
    on_globe = gpd.GeoSeries(list(geometry), crs=grid.crs.to_wkt()).to_crs(WGS84.to_wkt())
    measured = [_measure_on_ellipsoid(outline, geod) for outline in on_globe]
    area_perimeter = np.array(measured, np.float64).reshape(-1, 2)
    return area_perimeter[:, 0], area_perimeter[:, 1], "m"


def _measure_on_ellipsoid(outline: MultiPolygon, geod: Geod) -> tuple[float, float]:
    """Return area and perimeter along geodesics; which way a ring runs does not matter."""
    area, perimeter = 0.0, 0.0
    for part in outline.geoms:
        for sign, ring in [(1, part.exterior), *((-1, hole) for hole in part.interiors)]:
            ring_area, ring_length = geod.polygon_area_perimeter(*np.asarray(ring.coords)[:-1, :2].T)
            area, perimeter = area + sign * abs(ring_area), perimeter + ring_length
    return area, perimeter


def score_objects(
    objects: LabelledObjects, score_HW: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each object's mean and greatest score."""
    inside_HW = objects.labels_HW > 0
    labels = objects.labels_HW[inside_HW]
    values = np.nan_to_num(score_HW[inside_HW]).astype(np.float64)
    mean = np.bincount(labels, weights=values, minlength=len(objects) + 1)[1:] / np.maximum(objects.area_px[1:], 1)
    most = np.zeros(len(objects) + 1)
    np.maximum.at(most, labels, values)
    return np.round(mean, 4), np.round(most[1:], 4)


def find_majority_classes(
    objects: LabelledObjects, classes_HW: NDArray[np.uint8] | None, count: int, foreground: Sequence[int]
) -> list[int | None]:
    """Return each object's class; None where none is known.

    The concept (foreground or background) with more pixels is taken first, then its most frequent class: a roof that
    is 35 % house, 25 % building and 40 % road is a house.
    """
    if classes_HW is None or count == 0:
        return [None] * len(objects)
    counted_HW = (objects.labels_HW > 0) & (classes_HW < count)
    codes = objects.labels_HW[counted_HW].astype(np.int64) * count + classes_HW[counted_HW]
    table = np.bincount(codes, minlength=(len(objects) + 1) * count).reshape(-1, count)[1:]
    return pick_majority_classes(table, foreground)


def pick_majority_classes(table_NK: NDArray[np.int64], foreground: Sequence[int]) -> list[int | None]:
    """Do `find_majority_classes` for a table of the pixels that each object has of each class."""
    found = np.isin(np.arange(table_NK.shape[1]), list(foreground))
    wins = table_NK[:, found].sum(axis=1) >= table_NK[:, ~found].sum(axis=1)
    eligible = np.where(wins[:, None] == found, table_NK, -1)
    return [int(best) if row.any() else None for best, row in zip(eligible.argmax(axis=1), table_NK, strict=True)]


def classify_change(start: int | None, end: int | None, foreground: Sequence[int]) -> str:
    """Name what happened from the classes of both dates."""
    if start is None or end is None or not foreground:
        return "changed"
    was, is_now = start in foreground, end in foreground
    if was and is_now:
        return "replaced"
    return "appeared" if is_now else "disappeared" if was else "changed"


def get_vector_driver(path: Path) -> str:
    """Return the name of the format that a file's suffix means.

    Raises:
        ConfigError: the suffix is none of `VECTOR_DRIVERS`.
        MissingExtraError: GeoParquet without pyarrow.
    """
    driver = VECTOR_DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise ConfigError(f"{path.name}: unknown kind of vector file; wanted one of {', '.join(VECTOR_DRIVERS)}.")
    if driver == "GeoParquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingExtraError("GeoParquet needs pyarrow: install semicdvl[parquet], or write .gpkg.")
    return driver


def write_vector(
    path: Path, frame: gpd.GeoDataFrame, *, layer: str = CHANGES_LAYER, style: QgisStyle | None = None
) -> None:
    """Write the objects as GeoPackage, GeoJSON, FlatGeobuf or GeoParquet, by the file's suffix.

    GeoJSON knows longitude and latitude only (RFC 7946), so its geometry is turned into them where there is a CRS. The
    same objects give the same bytes: a GeoPackage carries no time of writing.

    Args:
        path: the file; an older one of that name is replaced.
        frame: the objects.
        layer: name of the layer.
        style: how QGIS colours them: written beside the file (`.qml`), and into a GeoPackage as its default style.

    Raises:
        ConfigError: the suffix is none of `VECTOR_DRIVERS`.
        MissingExtraError: GeoParquet without pyarrow.
        OutputError: the file cannot be written.
    """
    driver = get_vector_driver(path)
    if driver == "GeoJSON" and frame.crs is not None:
        frame = frame.to_crs(4326)
    with translate_gdal_errors(path), write_atomically(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # a plain pair has none
        if driver == "GeoParquet":
            frame.to_parquet(part, index=False, compression="zstd")
        else:
            part.unlink()  # a GeoPackage is made anew only where there is no file
            _write_ogr(part, frame, driver=driver, layer=layer)
        if driver == "GPKG" and style is not None:
            store_default_style(part, style, layer=layer)
    if style is not None:
        with write_atomically(path.with_suffix(".qml")) as part:
            part.write_text(build_qml(style), encoding="utf-8")


def _write_ogr(path: Path, frame: gpd.GeoDataFrame, *, driver: str, layer: str) -> None:
    options = {"geometry_type": "MultiPolygon", "layer": layer}  # else it is named like the temporary file
    if driver == "GeoJSON" and frame.crs is not None:
        options["RFC7946"] = "YES"
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": FIXED_TIMESTAMP})
    try:
        frame.to_file(path, driver=driver, engine="pyogrio", **options)
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})
