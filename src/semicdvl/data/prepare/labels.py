"""What a GIS knows of a raster pair: the polygons that changed, and the area in which all change was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray

from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN
from semicdvl.data.prepare.config import PrepareSettings
from semicdvl.data.prepare.polygon_layer import PolygonLayer, read_polygons
from semicdvl.errors import InputError
from semicdvl.raster.grid import Grid


@dataclass(frozen=True)
class LabelLayers:
    """The polygons that labels are made from, in the CRS of the raster pair.

    Attributes:
        changes: what changed between the dates.
        area: the ground on which all change is in `changes`; None: all of it.
    """

    changes: PolygonLayer
    area: PolygonLayer | None

    def find_known(self, grid: Grid, valid_HW: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return HW, True where the label is known: data on both dates, inside the labelled area, nothing left out."""
        drawn_HW = self.changes.rasterize_mask(grid)
        known_HW = valid_HW & (drawn_HW | ~self.changes.rasterize_unknown(grid))
        return known_HW if self.area is None else known_HW & self.area.rasterize_mask(grid)

    def make_label(self, grid: Grid, known_HW: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the label HW of a window in the values of label files: UNCHANGED, UNKNOWN or CHANGED."""
        changed_HW = self.changes.rasterize_mask(grid) & known_HW
        return np.where(changed_HW, CHANGED, np.where(known_HW, UNCHANGED, UNKNOWN)).astype(np.uint8)

    def find_squares_with_change(self, grid: Grid, corners: Sequence[tuple[int, int]], *, side_px: int) -> set[int]:
        """Return the indices of the squares with these top left pixels that touch a change and the labelled area."""
        boxes = [shapely.box(*grid.window(row, col, side_px, side_px).bounds) for row, col in corners]
        layers = (self.changes,) if self.area is None else (self.changes, self.area)
        touched = [set(layer.spatial_index.query(boxes, predicate="intersects")[0].tolist()) for layer in layers]
        return set.intersection(*touched)

    def describe_repairs(self) -> tuple[str, ...]:
        """Say in sentences what was left out of the layers or repaired."""
        return (*self.changes.describe_repairs(), *(self.area.describe_repairs() if self.area else ()))


def read_label_layers(
    labels: Path, labelled_area: Path | None, *, grid: Grid, settings: PrepareSettings
) -> LabelLayers:
    """Read the polygons of change and the labelled area, and make sure that some change lies in that area.

    Args:
        labels: vector file of what changed.
        labelled_area: vector file of the ground on which all change is in `labels`; None: all of it.
        grid: of the raster pair.
        settings: the layers' names, where a file has several.

    Raises:
        InputError: a file cannot be used, or no change lies in the labelled area.
    """
    changes = read_polygons(Path(labels), grid=grid, layer=settings.layer)
    if labelled_area is None:
        return LabelLayers(changes, None)
    area = read_polygons(Path(labelled_area), grid=grid, layer=settings.area_layer)
    if not changes.intersects(area):
        raise InputError(
            changes.path,
            f"none of its {len(changes)} polygons on the images lies in the labelled area of {area.path.name}",
            "Give labels and area of the same place; the area must contain the changes that were drawn in it",
        )
    return LabelLayers(changes, area)
