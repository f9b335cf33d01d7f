"""What a detection found, in numbers and polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semicdvl.detection.config import DetectionConfig
from semicdvl.raster.vector.object_layer import ObjectLayer
from semicdvl.reports.numbers import format_area, format_count

MAX_PLAUSIBLE_FRAC = 0.4
"""A larger changed share is more often a fault of the input than a fact."""


@dataclass(frozen=True)
class LeftOut:
    """The objects that were left out because they are small.

    Attributes:
        least_area: objects below it were left out; in m2, or in pixels where the size of a pixel is not known.
        objects: how many they were.
        px: their pixels.
    """

    least_area: float = 0.0
    objects: int = 0
    px: int = 0


@dataclass(frozen=True)
class DetectedChanges:
    """The changed objects of a raster and the counts of its pixels; the rasters themselves are written elsewhere.

    Attributes:
        objects: the changed objects, the largest first.
        changed_px: number of changed pixels.
        seen_px: number of pixels with data at both dates.
        class_px_2K: pixels of each class at either date; None for a detector without classes.
        classes: names of the classes.
        foreground: indices of the classes that were searched for.
        gsd_m: metres per pixel, None if not known.
        left_out: the objects that were left out because they are small.
    """

    objects: ObjectLayer
    changed_px: int
    seen_px: int
    class_px_2K: NDArray[np.int64] | None
    classes: tuple[str, ...]
    foreground: tuple[int, ...]
    gsd_m: float | None
    left_out: LeftOut = LeftOut()

    @property
    def has_metric_areas(self) -> bool:
        """Whether areas are in square metres and not in pixels."""
        return self.objects.unit == "m"


@dataclass(frozen=True)
class ChangeSummary:
    """The changes in a few numbers.

    Attributes:
        objects: number of changed objects.
        changed_px: number of changed pixels.
        seen_px: number of pixels with data at both dates.
        changed_m2: changed area in square metres, None where the size of a pixel is not known.
        by_kind: number of objects per kind of change.

    Examples:
        >>> import semicdvl as cd
        >>> summary = cd.detect(before, after, detector=cd.create_detector("cva")).summary
        >>> summary.seen_px, summary.changed_m2
        (6144, None)
    """

    objects: int
    changed_px: int
    seen_px: int
    changed_m2: float | None
    by_kind: dict[str, int]

    @property
    def changed_frac(self) -> float:
        """Changed share of the pixels with data at both dates."""
        return self.changed_px / max(self.seen_px, 1)

    @property
    def area_text(self) -> str:
        """The changed area with its unit."""
        return format_area(self.changed_m2 or float(self.changed_px), metric=self.changed_m2 is not None)

    def format_line(self) -> str:
        """Return the numbers as one line: objects, their kinds, area and share."""
        known = self.by_kind.items() if set(self.by_kind) != {"changed"} else ()  # of all objects: nothing is added
        kinds = ", ".join(f"{count} {kind}" for kind, count in known)
        objects = format_count(self.objects, "changed object") + (f" ({kinds})" if kinds else "")
        return f"{objects}, {self.area_text}, {self.changed_frac:.2%} of the pixels with data at both dates"


def summarise_changes(changes: DetectedChanges) -> ChangeSummary:
    """Count objects, pixels and areas."""
    return ChangeSummary(
        objects=len(changes.objects),
        changed_px=changes.changed_px,
        seen_px=changes.seen_px,
        changed_m2=float(changes.objects.area_N.sum()) if changes.has_metric_areas else None,
        by_kind=changes.objects.count_kinds(),
    )


def _describe_left_out(changes: DetectedChanges) -> str:
    """Return how many small objects were left out, and how to keep them."""
    left, metric = changes.left_out, changes.gsd_m is not None
    area = format_area(left.px * (changes.gsd_m or 1) ** 2, metric=metric)
    were = "was" if left.objects == 1 else "were"
    return (
        f"{format_count(left.objects, 'object')} below {format_area(left.least_area, metric=metric)} {were} left out "
        f"({area} in all). Give --min-area-m2 0 to keep all."
    )


def collect_warnings(
    changes: DetectedChanges, *, notes: Sequence[str], grid_gsd_m: float | None, config: DetectionConfig
) -> tuple[str, ...]:
    """Return what a reader of the result should know.

    Args:
        changes: what was found.
        notes: what was done to the images when they were opened as a pair.
        grid_gsd_m: metres per pixel as the grid says, None if it does not.
        config: the settings of the detection.
    """
    summary, lines = summarise_changes(changes), list(notes)
    if changes.gsd_m is None:
        lines.append("The size of a pixel is not known, so areas are in pixels. Give --gsd to have square metres.")
    elif config.gsd_m and grid_gsd_m and abs(config.gsd_m / grid_gsd_m - 1) > 0.05:
        lines.append(
            f"The detector was given {config.gsd_m:g} m per pixel, but the file says {grid_gsd_m:.3g} m. "
            "Check --gsd, or leave it out."
        )
    if changes.left_out.objects:
        lines.append(_describe_left_out(changes))
    if summary.objects == 0:
        lines.append("No change was found. In score.tif, high values show what was just below the threshold.")
    elif summary.changed_frac > MAX_PLAUSIBLE_FRAC:
        lines.append(
            f"{summary.changed_frac:.0%} of the area is mapped as changed, which is rarely true. Check that the images "
            "are co-registered and comparable, and that the words to find fit the place."
        )
    return tuple(lines)
