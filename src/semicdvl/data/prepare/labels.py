"""What a GIS knows of a raster pair: the polygons that changed, and the area in which all change was drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from semicdvl.data.patch_files import CHANGED, UNCHANGED, UNKNOWN
from semicdvl.data.prepare.config import PrepareSettings
from semicdvl.data.prepare.polygon_layer import PolygonLayer, read_polygons
from semicdvl.errors import ConfigError, InputError
from semicdvl.raster.grid import Grid
from semicdvl.registry import suggest_nearest
from semicdvl.types import IGNORE, ClassLegend


@dataclass(frozen=True)
class ChangeClasses:
    """The classes of the polygons of change.

    Attributes:
        names: of the classes, in the order of their index.
        before_N: uint8 index of each polygon's class at date 1; IGNORE where it is not said.
        after_N: the same at date 2.
    """

    names: tuple[str, ...]
    before_N: NDArray[np.uint8]
    after_N: NDArray[np.uint8]

    def describe(self, path: Path) -> tuple[str, ...]:
        """Say in sentences how many polygons lack a class, or have the same one at both dates."""
        known_N = (self.before_N != IGNORE) & (self.after_N != IGNORE)
        same = int((known_N & (self.before_N == self.after_N)).sum())
        notes = []
        if missing := int((~known_N).sum()):
            rows = "1 polygon has" if missing == 1 else f"{missing:,} polygons have"
            notes.append(f"{path.name}: {rows} no class before, or none after; there it is not known.")
        if same:
            rows, count = ("1 polygon has", "counts") if same == 1 else (f"{same:,} polygons have", "count")
            notes.append(f"{path.name}: {rows} the same class before and after, and {count} as changed.")
        return tuple(notes)


@dataclass(frozen=True)
class LabelLayers:
    """The polygons that labels are made from, in the CRS of the raster pair.

    Attributes:
        changes: what changed between the dates.
        area: the ground on which all change is in `changes`; None: all of it.
        classes: of the changes at either date; None: they are not known.
    """

    changes: PolygonLayer
    area: PolygonLayer | None
    classes: ChangeClasses | None = None

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
        classes = () if self.classes is None else self.classes.describe(self.changes.path)
        return (*self.changes.describe_repairs(), *(self.area.describe_repairs() if self.area else ()), *classes)

    def make_classes(self, grid: Grid, known_HW: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the class maps HW of both dates of a window: IGNORE where nothing changed, or nothing is known."""
        assert self.classes is not None, "the layers have classes"
        numbers_HW = np.where(known_HW, self.changes.rasterize_numbers(grid), 0)
        before_HW, after_HW = (
            np.concatenate([[IGNORE], of_date_N])[numbers_HW].astype(np.uint8)
            for of_date_N in (self.classes.before_N, self.classes.after_N)
        )
        return before_HW, after_HW


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
    changes = read_polygons(Path(labels), grid=grid, layer=settings.layer, columns=settings.class_columns or ())
    classes = _read_classes(changes, settings)
    if labelled_area is None:
        return LabelLayers(changes, None, classes)
    area = read_polygons(Path(labelled_area), grid=grid, layer=settings.area_layer)
    if not changes.intersects(area):
        raise InputError(
            changes.path,
            f"none of its polygons on the images ({len(changes)}) lies in the labelled area of {area.path.name}",
            "Give labels and area of the same place; the area must contain the changes that were drawn in it",
        )
    return LabelLayers(changes, area, classes)


def _read_classes(changes: PolygonLayer, settings: PrepareSettings) -> ChangeClasses | None:
    """Return the classes that the columns of the settings hold; None without columns.

    Raises:
        InputError: they hold fewer than two classes, too many, or one that is not named.
    """
    if settings.class_columns is None:
        return None
    before, after = ([_name_class(one) for one in changes.values[name]] for name in settings.class_columns)
    found = sorted({name for name in (*before, *after) if name is not None})
    names = settings.class_names or tuple(found)
    columns = " and ".join(f"'{name}'" for name in settings.class_columns)
    if unknown := [name for name in found if name not in names]:
        hint = suggest_nearest(unknown[0], names)
        problem = f"names the class '{unknown[0]}' in {columns}, which is not among {', '.join(names)}"
        raise InputError(changes.path, problem, f"{hint.strip()} Correct the file, or name it, too".strip())
    try:
        ClassLegend(names)
    except ConfigError as error:
        remedy = "Give the columns of the class before and after"
        raise InputError(
            changes.path, f"cannot give classes from {columns} ({str(error).rstrip('.')})", remedy
        ) from error
    index_of: dict[str | None, int] = {None: IGNORE} | {name: index for index, name in enumerate(names)}
    before_N, after_N = (np.array([index_of[name] for name in date], np.uint8) for date in (before, after))
    return ChangeClasses(names, before_N, after_N)


def _name_class(value: Any) -> str | None:
    """Return the name of a class in a cell; a whole number is written as one, an empty cell is None."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return str(value).strip() or None
