"""The scores of an evaluation as rows of a table, and as the values of evaluation.json."""

from __future__ import annotations

import math
from typing import Any

from semicdvl.evaluation.map_vs_truth import MapComparison
from semicdvl.evaluation.stratified_sample import StratifiedSample
from semicdvl.metrics.area_adjusted import AreaAccuracy, Estimate
from semicdvl.metrics.objects import ObjectMatches

TableRow = tuple[str, str]


def _format_area(pixels: float, pixel_m2: float | None) -> str:
    """Return an area with its unit."""
    return f"{pixels:,.0f} px" if pixel_m2 is None else f"{pixels * pixel_m2:,.0f} m²"


def _format_score(value: float, half_width: float | None = None) -> str:
    """Return a score with its interval, where it has one."""
    if math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if half_width is None else f"{value:.4f} ± {_format_half_width(half_width, '.4f')}"


def _format_half_width(half_width: float, digits: str) -> str:
    """Return half an interval; a stratum with fewer than two places has none."""
    return "undefined" if math.isnan(half_width) else format(half_width, digits)


def format_pixel_rows(comparison: MapComparison, pixel_m2: float | None) -> list[TableRow]:
    """Return the scores by pixel."""
    pixels = comparison.pixels
    rows = [(f"pixels: {name}", _format_score(value)) for name, value in pixels.list_meaningful_scores().items()]
    areas = {
        "changed in truth": pixels.tp + pixels.fn,
        "correctly detected": pixels.tp,
        "missed": pixels.fn,
        "falsely detected": pixels.fp,
    }
    return rows + [(f"area {name}", _format_area(count, pixel_m2)) for name, count in areas.items()]


def format_object_rows(match: ObjectMatches, pixel_m2: float | None) -> list[TableRow]:
    """Return the scores by object."""
    scores = match.counts
    rows = [("objects: in truth, in the result", f"{scores.actual}, {scores.predicted}")]
    meaningful = scores.list_meaningful_scores()
    for name, prefix in (("by IoU", ""), ("by any overlap", "any_")):
        for each in ("precision", "recall", "f1"):
            rows.append((f"objects {name}: {each}", _format_score(meaningful[prefix + each])))
    missed, invented = _count_unmatched(match)
    for name, (count, pixels) in (("missed", missed), ("false", invented)):
        rows.append((f"objects {name}", f"{count}, {_format_area(pixels, pixel_m2)}"))
    return rows


def _count_unmatched(match: ObjectMatches) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return number and pixels of the objects without any overlap: of the truth (missed) and of the result (false)."""
    missed = ~match.truth_touched & (match.truth_area_px > 0)
    invented = ~match.pred_touching & (match.pred_area_px > 0)
    return (
        (int(missed.sum()), int(match.truth_area_px[missed].sum())),
        (int(invented.sum()), int(match.pred_area_px[invented].sum())),
    )


def format_accuracy_rows(sample: StratifiedSample, accuracy: AreaAccuracy, pixel_m2: float | None) -> list[TableRow]:
    """Return the area-adjusted estimates with their intervals."""
    unit = "px" if pixel_m2 is None else "m²"
    rows = [
        (
            "sample (95 % intervals): places checked",
            f"{sample.checked_count} ({accuracy.sample_KK[1].sum()} of them mapped as changed)",
        )
    ]
    estimates = {
        "overall accuracy": accuracy.overall_accuracy,
        "user's accuracy of change": accuracy.users_accuracies[1],
        "producer's accuracy of change": accuracy.producers_accuracies[1],
    }
    rows += [(f"sample: {name}", _format_score(each.value, each.half_width)) for name, each in estimates.items()]
    rows.append((f"sample: changed area as mapped, {unit}", f"{accuracy.mapped_areas[1]:,.0f}"))
    area = accuracy.estimated_areas[1]
    adjusted = (
        "undefined" if math.isnan(area.value) else f"{area.value:,.0f} ± {_format_half_width(area.half_width, ',.0f')}"
    )
    rows.append((f"sample: changed area adjusted, {unit}", adjusted))
    return rows


def build_comparison_record(comparison: MapComparison, pixel_m2: float | None) -> dict[str, Any]:
    """Return pixel and object scores."""
    pixels, match = comparison.pixels, comparison.objects
    counts = {name: getattr(pixels, name) for name in ("tp", "fp", "fn", "tn")}
    missed, invented = _count_unmatched(match)
    objects = {name: getattr(match.counts, name) for name in ("actual", "predicted", "matched")}
    objects |= match.counts.list_meaningful_scores()
    objects |= {"missed": missed[0], "missed_px": missed[1], "invented": invented[0], "invented_px": invented[1]}
    found: dict[str, Any] = {"pixels": {**counts, **pixels.list_meaningful_scores()}, "objects": objects}
    if pixel_m2 is not None:
        areas = {"truth": pixels.tp + pixels.fn, "found": pixels.tp, "missed": pixels.fn, "invented": pixels.fp}
        found["area_m2"] = {name: count * pixel_m2 for name, count in areas.items()}
    return found


def build_accuracy_record(sample: StratifiedSample, accuracy: AreaAccuracy) -> dict[str, Any]:
    """Return the area-adjusted estimates; index 0 unchanged, 1 changed; each with its 95 % half width."""

    def pair(each: Estimate) -> list[float]:
        return [each.value, each.half_width]

    return {
        "checked": sample.checked_count,
        "error_matrix": accuracy.sample_KK.tolist(),
        "error_matrix_area_frac": accuracy.shares_KK.tolist(),
        "overall": pair(accuracy.overall_accuracy),
        "users": [pair(each) for each in accuracy.users_accuracies],
        "producers": [pair(each) for each in accuracy.producers_accuracies],
        "mapped_area": list(accuracy.mapped_areas),
        "adjusted_area": [pair(each) for each in accuracy.estimated_areas],
    }
