"""A change map -> one row per changed object, with what an analyst sorts and filters by, and a file of it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from pyproj import Geod
from rasterio.features import shapes
from shapely import MultiPolygon, get_parts
from shapely.geometry import shape

from semicdvl.errors import ConfigError
from semicdvl.files import whole
from semicdvl.rasters.grid import WGS84, Grid
from semicdvl.rasters.write import gdal_errors

DRIVERS = {".gpkg": "GPKG", ".geojson": "GeoJSON", ".fgb": "FlatGeobuf"}
KINDS = ("appeared", "disappeared", "replaced", "changed")


@dataclass(frozen=True)
class Objects:
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


def find_objects(change_HW: NDArray[np.uint8], *, min_area_px: float = 0) -> Objects:
    """Label the 8-connected objects (value 1) of a map; objects smaller than `min_area_px` are left out."""
    changed_HW = (change_HW == 1).astype(np.uint8)
    count, labels_HW, stats, _ = cv2.connectedComponentsWithStats(changed_HW, connectivity=8)
    area_px = stats[:, cv2.CC_STAT_AREA].astype(np.int64)
    keep = area_px >= min_area_px
    keep[0] = False
    renumbered = np.where(keep, np.cumsum(keep), 0).astype(np.int32)
    kept_HW: NDArray[np.int32] = renumbered[labels_HW] if count > 1 else np.zeros(change_HW.shape, np.int32)
    return Objects(kept_HW, np.concatenate([[change_HW.size - area_px[keep].sum()], area_px[keep]]))


def polygons(
    objects: Objects,
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
    `gsd_m` gives the size of a pixel. The perimeter follows the pixels' edges: longer than a smoothed outline.
    """
    geometry = _outlines(objects, grid)
    area, perimeter, unit = _measures(objects, geometry, grid=grid, gsd_m=gsd_m)
    mean, most = scores_of(objects, score_HW)
    start = majority_classes(objects, t1_HW, len(classes), foreground)
    end = majority_classes(objects, t2_HW, len(classes), foreground)
    frame = gpd.GeoDataFrame(
        {
            "id": np.arange(1, len(objects) + 1),
            "kind": [kind_of(a, b, foreground) for a, b in zip(start, end, strict=True)],
            "from_class": [None if a is None else classes[a] for a in start],
            "to_class": [None if b is None else classes[b] for b in end],
            f"area_{unit}{'2' if unit == 'm' else ''}": area,
            f"perimeter_{unit}": perimeter,
            "score": mean,
            "score_max": most,
        },
        geometry=geometry,
        crs=None if grid.crs is None else grid.crs.to_wkt(),
    )
    column = "area_m2" if unit == "m" else "area_px"
    return frame.sort_values([column, "id"], ascending=[False, True], ignore_index=True)


def _outlines(objects: Objects, grid: Grid) -> list[MultiPolygon]:
    """Return the outline of every object.

    Traced 4-connected, because 8-connected outlines touch themselves at corners, which no GIS takes for valid; the
    pieces of one object are joined to one multi-polygon.
    """
    pieces: list[list[Any]] = [[] for _ in range(len(objects))]
    found = shapes(objects.labels_HW, mask=objects.labels_HW > 0, connectivity=4, transform=grid.transform)
    for outline, label in found:
        pieces[int(label) - 1].append(shape(outline))
    return [MultiPolygon(list(get_parts(parts))) for parts in pieces]


def _measures(
    objects: Objects, geometry: list[MultiPolygon], *, grid: Grid, gsd_m: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return areas, perimeters and their unit ("m" or "px")."""
    if grid.crs is None:
        scale = 1.0 if gsd_m is None else gsd_m
        area = objects.area_px[1:].astype(np.float64) * scale**2
        perimeter = np.array([outline.length for outline in geometry], np.float64) * scale
        return area, perimeter, "px" if gsd_m is None else "m"
    if grid.planar:
        unit_m = float(grid.crs.linear_units_factor[1])
        area = np.array([outline.area for outline in geometry], np.float64) * unit_m**2
        return area, np.array([outline.length for outline in geometry], np.float64) * unit_m, "m"
    geod = Geod(ellps="WGS84")
    on_globe = gpd.GeoSeries(geometry, crs=grid.crs.to_wkt()).to_crs(WGS84.to_wkt())
    measured = [geod.geometry_area_perimeter(outline) for outline in on_globe]
    area_perimeter = np.abs(np.array(measured, np.float64).reshape(-1, 2))
    return area_perimeter[:, 0], area_perimeter[:, 1], "m"


def scores_of(objects: Objects, score_HW: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return each object's mean and greatest score."""
    inside_HW = objects.labels_HW > 0
    labels = objects.labels_HW[inside_HW]
    values = np.nan_to_num(score_HW[inside_HW]).astype(np.float64)
    mean = np.bincount(labels, weights=values, minlength=len(objects) + 1)[1:] / np.maximum(objects.area_px[1:], 1)
    most = np.zeros(len(objects) + 1)
    np.maximum.at(most, labels, values)
    return np.round(mean, 4), np.round(most[1:], 4)


def majority_classes(
    objects: Objects, classes_HW: NDArray[np.uint8] | None, count: int, foreground: Sequence[int]
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
    found = np.isin(np.arange(count), list(foreground))
    wins = table[:, found].sum(axis=1) >= table[:, ~found].sum(axis=1)
    eligible = np.where(wins[:, None] == found, table, -1)
    return [int(best) if row.any() else None for best, row in zip(eligible.argmax(axis=1), table, strict=True)]


def kind_of(start: int | None, end: int | None, foreground: Sequence[int]) -> str:
    """Name what happened from the classes of both dates."""
    if start is None or end is None or not foreground:
        return "changed"
    was, is_now = start in foreground, end in foreground
    if was and is_now:
        return "replaced"
    return "appeared" if is_now else "disappeared" if was else "changed"


def write_vector(path: Path, frame: gpd.GeoDataFrame, *, layer: str = "changes") -> None:
    """Write the objects as GeoPackage, GeoJSON or FlatGeobuf, by the file's suffix.

    GeoJSON knows longitude and latitude only, so its geometry is turned into them where there is a CRS.

    Raises:
        ConfigError: the suffix is none of `DRIVERS`.
        OutputError: the file cannot be written.
    """
    driver = DRIVERS.get(path.suffix.lower())
    if driver is None:
        raise ConfigError(f"{path.name}: unknown kind of vector file; wanted one of {', '.join(DRIVERS)}.")
    if driver == "GeoJSON" and frame.crs is not None:
        frame = frame.to_crs(4326)
    with gdal_errors(path), whole(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)  # a plain pair has none
        part.unlink()  # a GeoPackage is made anew only where there is no file
        frame.to_file(part, driver=driver, engine="pyogrio", **_layer(driver, layer))


def _layer(driver: str, layer: str) -> dict[str, Any]:
    return {"layer": layer, "geometry_type": "MultiPolygon"} if driver == "GPKG" else {"geometry_type": "MultiPolygon"}
