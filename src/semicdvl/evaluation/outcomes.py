"""The objects of a result and of the truth, each with its outcome, as a layer for a GIS."""

from __future__ import annotations

from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import shapes
from shapely.geometry import shape

from semicdvl.data.prepare.polygon_layer import PolygonLayer
from semicdvl.evaluation.map_vs_truth import DetectedMap, MaskTruth, PolygonTruth, Truth
from semicdvl.metrics.objects import ObjectMatches
from semicdvl.raster.vector.qgis_style import QgisStyle
from semicdvl.reports.colours import OUTCOME_COLOURS

OUTCOME_STYLE = QgisStyle(
    "outcome",
    {
        "matched": OUTCOME_COLOURS["correctly detected"],
        "touched": (240, 200, 40),
        "missed": OUTCOME_COLOURS["missed"],
        "invented": OUTCOME_COLOURS["falsely detected"],
    },
)
"""Colours of the objects of an evaluation in a GIS."""


def label_outcomes(result: DetectedMap, truth: Truth, match: ObjectMatches) -> gpd.GeoDataFrame:
    """Return all objects with their outcome: matched, touched (overlap too small), missed or invented (false)."""
    sides = (
        ("result", _list_shapes(result.objects), match.pred_area_px, match.pred_matched, match.pred_touching),
        ("truth", _trace_truth(truth, result), match.truth_area_px, match.truth_matched, match.truth_touched),
    )
    frames = []
    for source, outlines, area_px, matched, touched in sides:
        alone = "invented" if source == "result" else "missed"
        outcome = np.where(matched, "matched", np.where(touched, "touched", alone))
        on_map = area_px > 0
        columns = {"source": source, "outcome": outcome[on_map], "pixels": area_px[on_map]}
        frames.append(gpd.GeoDataFrame(columns, geometry=[_as_multipolygon(each) for each in outlines[on_map]]))
    kept = [frame for frame in frames if len(frame)]
    joined = gpd.pd.concat(kept, ignore_index=True) if kept else frames[0]
    crs = None if result.grid.crs is None else result.grid.crs.to_wkt()
    return gpd.GeoDataFrame(joined, geometry="geometry", crs=crs)


def _list_shapes(polygons: PolygonLayer | None) -> NDArray[np.object_]:
    """Return the shapes; an empty array for None."""
    return np.zeros(0, object) if polygons is None else polygons.shapes


def _trace_truth(truth: Truth, result: DetectedMap) -> NDArray[np.object_]:
    """Return the objects of the truth as shapes; the regions of a mask are polygonised."""
    if isinstance(truth, PolygonTruth):
        return truth.polygons.shapes
    assert isinstance(truth, MaskTruth), "a truth is polygons or a mask"
    pieces: list[list[Any]] = [[] for _ in range(truth.count)]
    traced = shapes(truth.numbers_HW, mask=truth.numbers_HW > 0, connectivity=4, transform=result.grid.transform)
    for outline, number in traced:
        pieces[int(number) - 1].append(shape(outline))
    found = np.empty(truth.count, object)
    found[:] = [shapely.MultiPolygon(parts) for parts in pieces]
    return found


def _as_multipolygon(outline: Any) -> Any:
    """Return a polygon as a multi-polygon, the type of the layer."""
    return outline if outline.geom_type == "MultiPolygon" else shapely.MultiPolygon([outline])
