"""Make the table of changed objects: one row per object, with its polygon and what an analyst filters and sorts by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod
from shapely import MultiPolygon

from semicdvl.raster.connected_components import LabelledObjects
from semicdvl.raster.grid import WGS84, Grid, measure_map_unit_m
from semicdvl.raster.vector.object_stats import (
    UNSURE,
    classify_change,
    find_majority_classes,
    is_named,
    score_objects,
)
from semicdvl.raster.vector.polygonise import trace_outlines
from semicdvl.raster.vector.simplify import SimplifySettings, simplify_polygons

if TYPE_CHECKING:
    import geopandas as gpd


@dataclass(frozen=True)
class ObjectAttributes:
    """The attributes of N objects beside their polygons; the object with `id` n is at n - 1.

    Attributes:
        area_px: int64 N, pixels.
        score: float64 N, mean score.
        score_max: float64 N, greatest score.
        from_class: class at the first date; None where unknown.
        to_class: class at the second date.
        probability: float64 N, probability of change; NaN where unknown. None for a method without probabilities.
        from_score: float64 N, how well `from_class` is supported, see `object_stats.score_classes`; None for classes
            without scores.
        to_score: the same of `to_class`.
        class_score: support from which a class is named; see `types.ChangeMap.class_score`.
    """

    area_px: NDArray[np.int64]
    score: NDArray[np.float64]
    score_max: NDArray[np.float64]
    from_class: Sequence[int | None]
    to_class: Sequence[int | None]
    probability: NDArray[np.float64] | None = None
    from_score: NDArray[np.float64] | None = None
    to_score: NDArray[np.float64] | None = None
    class_score: float = 0.0

    def name_classes(self, classes: Sequence[str], foreground: Sequence[int]) -> dict[str, Any]:
        """Return the columns with the classes of both dates: "unsure" where a class is only a guess."""
        columns: dict[str, Any] = {}
        for date, found, scores in (
            ("from", self.from_class, self.from_score),
            ("to", self.to_class, self.to_score),
        ):
            support = np.full(len(found), np.nan) if scores is None else scores
            columns[f"{date}_class"] = [
                None
                if one is None
                else classes[one]
                if is_named(one, float(score), least_score=self.class_score, foreground=foreground)
                else UNSURE
                for one, score in zip(found, support, strict=True)
            ]
            if scores is not None:
                columns[f"{date}_score"] = scores
        return columns


@dataclass(frozen=True)
class NumberedPolygons:
    """Numbers, areas and perimeters of N polygons.

    Attributes:
        number_N: their numbers on the map.
        area_N: areas, in square units.
        perimeter_N: perimeters, holes included.
        unit: "m" or "px".
    """

    number_N: NDArray[np.int64]
    area_N: NDArray[np.float64]
    perimeter_N: NDArray[np.float64]
    unit: str


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
    """Return one row per object of a whole map, largest first, with its outline along the edges of the pixels.

    Columns: `id` (value in `objects.labels_HW`); `kind`: appeared (background -> foreground), disappeared, replaced
    (foreground -> foreground) or changed (unknown); `from_class` and `to_class`: the majority class of either date
    (None for a method without classes); `area_m2` and `perimeter_m`; `compactness`; `score` (mean) and `score_max`.

    Areas and perimeters are measured on the map where its units are metres on the ground, otherwise (degrees, Web
    Mercator) along geodesics. Without a CRS they are in pixels, in columns `area_px` and `perimeter_px`, unless `gsd_m`
    gives the size of a pixel. `compactness` is 4 pi area / perimeter^2 (Polsby and Popper): 1 for a disc, 0.79 for a
    square, near 0 for a thin line. The perimeter includes holes and follows the edges of the pixels, so it is longer
    than that of a smooth outline.
    """
    from_class, to_class = (
        find_majority_classes(objects, classes_HW, len(classes), foreground) for classes_HW in (t1_HW, t2_HW)
    )
    attributes = ObjectAttributes(objects.area_px[1:], *score_objects(objects, score_HW), from_class, to_class)
    outlines = trace_outlines(objects.labels_HW, len(objects), grid.transform)
    return assemble_object_frame(outlines, attributes, grid=grid, classes=classes, foreground=foreground, gsd_m=gsd_m)


def assemble_object_frame(
    geometry: Sequence[MultiPolygon],
    attributes: ObjectAttributes,
    *,
    grid: Grid,
    classes: Sequence[str] = (),
    foreground: Sequence[int] = (),
    gsd_m: float | None = None,
    simplify: SimplifySettings | None = None,
    known: NumberedPolygons | None = None,
) -> gpd.GeoDataFrame:
    """Return the rows of `build_object_frame` for outlines in map coordinates and the attributes of their objects.

    With `simplify` the polygons have fewer corners or right angles. Perimeter and compactness are those of the
    simplified outline; the area remains that of the object's pixels, so that areas add up to the map's. Of objects that
    are not all of a map, or were measured before, `known` gives the numbers.
    """
    import geopandas as gpd

    if known is None:
        numbers = np.arange(1, len(attributes.area_px) + 1)
        known = NumberedPolygons(numbers, *measure_polygons(geometry, grid=grid, gsd_m=gsd_m))
    area, perimeter, unit = known.area_N, known.perimeter_N, known.unit
    drawn, drawn_area = list(geometry), area
    if simplify is not None:
        drawn = simplify_polygons(geometry, simplify, grid=grid, gsd_m=gsd_m)
        drawn_area, perimeter, _ = measure_polygons(drawn, grid=grid, gsd_m=gsd_m)
    area_column = "area_m2" if unit == "m" else "area_px"
    pairs = list(zip(attributes.from_class, attributes.to_class, strict=True))
    frame = gpd.GeoDataFrame(
        {
            "id": known.number_N,
            "kind": [classify_change(before, after, foreground) for before, after in pairs],
            **attributes.name_classes(classes, foreground),
            area_column: area,
            f"perimeter_{unit}": perimeter,
            "compactness": np.round(4 * np.pi * drawn_area / np.maximum(perimeter, 1e-12) ** 2, 4),
            "score": attributes.score,
            "score_max": attributes.score_max,
            **({} if attributes.probability is None else {"probability": attributes.probability}),
        },
        geometry=drawn,
        crs=None if grid.crs is None else grid.crs.to_wkt(),
    )
    return frame.sort_values([area_column, "id"], ascending=[False, True], ignore_index=True)


def measure_polygons(
    geometry: Sequence[MultiPolygon], *, grid: Grid, gsd_m: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return areas, perimeters (holes included) and their unit ("m" or "px") of polygons in map coordinates."""
    if grid.crs is None or grid.has_true_scale:
        x_m, y_m = (float(unit_m) for unit_m in measure_map_unit_m(grid, gsd_m=gsd_m))
        if x_m != y_m:  # without a CRS pixels count as squares, whatever the geotransform says
            geometry = list(shapely.transform(np.array(geometry, object), lambda xy_N2: xy_N2 * (x_m, y_m)))
            x_m = y_m = 1.0
        area = np.array([outline.area for outline in geometry], np.float64) * x_m**2
        perimeter = np.array([outline.length for outline in geometry], np.float64) * x_m
        return area, perimeter, "px" if grid.crs is None and gsd_m is None else "m"
    import geopandas as gpd

    geod = Geod(ellps="WGS84")
    geographic = gpd.GeoSeries(list(geometry), crs=grid.crs.to_wkt()).to_crs(WGS84.to_wkt())
    measured_N2 = np.array([_measure_on_ellipsoid(outline, geod) for outline in geographic], np.float64).reshape(-1, 2)
    return measured_N2[:, 0], measured_N2[:, 1], "m"


def _measure_on_ellipsoid(outline: MultiPolygon, geod: Geod) -> tuple[float, float]:
    """Return area and perimeter along geodesics, whatever the orientation of the rings."""
    area, perimeter = 0.0, 0.0
    for part in outline.geoms:
        for sign, ring in [(1, part.exterior), *((-1, hole) for hole in part.interiors)]:
            ring_area, ring_length = geod.polygon_area_perimeter(*np.asarray(ring.coords)[:-1, :2].T)
            area, perimeter = area + sign * abs(ring_area), perimeter + ring_length
    return area, perimeter
