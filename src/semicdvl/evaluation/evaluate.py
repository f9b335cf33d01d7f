"""Evaluate a change map against reference data: a table, evaluation.json and a layer of objects for a GIS."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import hash_file, hash_values, write_json
from semicdvl.config import parse_label_values
from semicdvl.data.prepare.polygon_layer import PolygonLayer, read_polygons
from semicdvl.errors import ConfigError
from semicdvl.evaluation.map_vs_truth import (
    MapComparison,
    PolygonTruth,
    Truth,
    compare_with_truth,
    read_detected_map,
    read_truth,
)
from semicdvl.evaluation.outcomes import OUTCOME_STYLE, label_outcomes
from semicdvl.evaluation.score_table import (
    TableRow,
    build_accuracy_record,
    build_comparison_record,
    format_accuracy_rows,
    format_object_rows,
    format_pixel_rows,
)
from semicdvl.evaluation.stratified_sample import (
    StratifiedSample,
    draw_stratified_sample,
    is_sample,
    read_sample,
    write_sample,
)
from semicdvl.metrics.area_adjusted import AreaAccuracy
from semicdvl.outputs.exchange import write_file_set
from semicdvl.outputs.locks import lock_argument
from semicdvl.raster.vector.files import write_vector
from semicdvl.reports.numbers import format_count

EVALUATION_FORMAT = "semicdvl-evaluation-1"
MAX_USUAL_CHANGE_FRAC = 0.5
"""More changed ground than this in a truth is worth a remark: the mask may be inverted."""
DEFAULT_SAMPLE_SIZE = 500
"""Default number of places for the area-adjusted accuracy."""


@dataclass(frozen=True)
class MapEvaluation:
    """The scores of a change map against the truth.

    Attributes:
        out: folder of the result, in which evaluation.json lies.
        comparison: by pixel and by object; None if the truth is a sample of places.
        sample: the places; None if none were drawn.
        accuracy: the area-adjusted estimates from these places.
        pixel_m2: area of a pixel, None if not known.
        notes: what a reader should know.

    Examples:
        >>> import semicdvl as cd
        >>> saved = cd.detect_to_folder(before_tif, after_tif, out, detector=cd.create_detector("cva"), progress=False)
        >>> evaluation = cd.evaluate_map(saved.folder, changes_gpkg)
        >>> len(evaluation.format_rows()) > 0
        True
    """

    out: Path
    comparison: MapComparison | None
    sample: StratifiedSample | None
    accuracy: AreaAccuracy | None
    pixel_m2: float | None
    notes: tuple[str, ...] = ()

    def format_rows(self) -> list[TableRow]:
        """Return names and numbers for a table."""
        found: list[TableRow] = []
        if self.comparison is not None:
            found += format_pixel_rows(self.comparison, self.pixel_m2) + format_object_rows(
                self.comparison.objects, self.pixel_m2
            )
        if self.sample is not None and self.accuracy is not None:
            found += format_accuracy_rows(self.sample, self.accuracy, self.pixel_m2)
        return found


@lock_argument("out")
def score_map(  # noqa: PLR0913  (what `api.evaluate_map` takes, and the IoU)
    out: Path,
    truth: Path,
    *,
    area: Path | None = None,
    layer: str | None = None,
    area_layer: str | None = None,
    sample: int = DEFAULT_SAMPLE_SIZE,
    seed: int = 0,
    min_iou: float = 0.5,
    label_values: str | Mapping[int, int] | None = None,
    truth_nodata: int | None = None,
) -> MapEvaluation:
    """Compare a result of `detect` with the truth and write evaluation.json and evaluation.gpkg into its folder.

    Args:
        out: the folder of the result.
        truth: polygons of the changes, a mask raster, or places with a column `truth` (see `draw_reference_sample`).
        area: polygons of the area where the truth is known; None: everywhere.
        layer: layer of the truth's file, where it has several.
        area_layer: layer of the area's file.
        sample: number of places for the area-adjusted accuracy; 0: none.
        seed: seed of the sampling.
        min_iou: IoU from which two objects match.
        label_values: what the values of a mask mean, such as "255=changed,0=unchanged"; None: white, 255 or 1 is
            changed and black or 0 unchanged.
        truth_nodata: value of a mask where the truth is not known.

    Raises:
        InputError: a file cannot be used, or does not overlap the result.
        DataError: the places hold other values than 0 and 1.
        OutputError: the folder cannot be written.
    """
    result = read_detected_map(out)
    known = None if area is None else read_polygons(area, grid=result.grid, layer=area_layer)
    pixel_m2, outcomes = None if result.gsd_m is None else result.gsd_m**2, None
    if is_sample(truth):
        places = read_sample(truth, result, area=known)
        estimate = places.estimate_accuracy(pixel_m2=pixel_m2)
        done = MapEvaluation(out, None, places, estimate, pixel_m2, _note_other_map(places, out))
    else:
        values = parse_label_values(label_values) if isinstance(label_values, str) else label_values
        real = read_truth(truth, grid=result.grid, layer=layer, label_values=values, nodata=truth_nodata)
        comparison = compare_with_truth(result, real, area=known, min_iou=min_iou)
        drawn = draw_stratified_sample(result, total=sample, seed=seed, area=known, truth=real) if sample else None
        accuracy = None if drawn is None else drawn.estimate_accuracy(pixel_m2=pixel_m2)
        notes = _collect_notes(comparison, real, known)
        outcomes = label_outcomes(result, real, comparison.objects)
        done = MapEvaluation(out, comparison, drawn, accuracy, pixel_m2, notes)
    settings: dict[str, Any] = {"area": area and str(area), "sample": sample, "seed": seed, "min_iou": min_iou}
    of_mask = {"label_values": label_values and str(label_values), "truth_nodata": truth_nodata}
    settings |= {name: value for name, value in of_mask.items() if value is not None}
    with write_file_set(Path(out)) as work:
        if outcomes is not None:
            write_vector(work / "evaluation.gpkg", outcomes, layer="evaluation", style=OUTCOME_STYLE)
        write_json(work / "evaluation.json", _replace_nan({**_build_record(done, truth), "settings": settings}))
    return done


@lock_argument("out")
def draw_reference_sample(
    out: Path, *, count: int, seed: int = 0, area: Path | None = None, area_layer: str | None = None
) -> Path:
    """Draw places of a result for visual interpretation, write them as OUT/sample.gpkg and return its path.

    Raises:
        InputError: the folder does not hold a result.
        ConfigError: there is a sample already, which may hold answers.
        OutputError: the folder cannot be written.
    """
    result, path = read_detected_map(out), Path(out) / "sample.gpkg"
    if path.exists():
        raise ConfigError(
            f"{path}: exists already and may hold answers. Evaluate with --truth {path}, or move it away."
        )
    known = None if area is None else read_polygons(area, grid=result.grid, layer=area_layer)
    write_sample(path, draw_stratified_sample(result, total=count, seed=seed, area=known), result)
    return path


def _note_other_map(places: StratifiedSample, out: Path) -> tuple[str, ...]:
    """Say that places were drawn from another map: of theirs a rare class has more places than its area has a share."""
    if not places.moved_count:
        return ()
    return (
        f"Of the sample, {format_count(places.moved_count, 'place')} had another class on the map from which it was "
        "drawn. It is no random sample of the classes of this map, so the accuracies and areas are biased. Draw another"
        f" one: `semicdvl evaluate {out} --sample {len(places.rows_N)}` (move sample.gpkg away first).",
    )


def _collect_notes(comparison: MapComparison, truth: Truth, area: PolygonLayer | None) -> tuple[str, ...]:
    """Return what a reader of the scores should know."""
    notes = list(truth.polygons.describe_repairs()) if isinstance(truth, PolygonTruth) else []
    notes += area.describe_repairs() if area else ()
    if not comparison.pixels.tp + comparison.pixels.fn:
        notes.append(
            "The truth has no change on the ground that counts, so scores of how well it is found are undefined."
        )
    changed = comparison.pixels.tp + comparison.pixels.fn
    if changed > MAX_USUAL_CHANGE_FRAC * comparison.pixels.total:
        notes.append(
            f"The truth calls {changed / comparison.pixels.total:.0%} of the ground changed. If white means unchanged"
            " in its mask, give --label-values 0=changed,255=unchanged."
        )
    shared = truth.polygons.count_overlapping() if isinstance(truth, PolygonTruth) else 0
    if shared:
        notes.append(
            f"{format_count(shared, 'polygon')} of the truth {'shares' if shared == 1 else 'share'} ground with a later"
            " one, and that ground counts as the later one's: scores of objects are those of what is left."
        )
    uncounted = truth.count - comparison.objects.counts.actual
    if uncounted:
        notes.append(
            f"Not counted: {format_count(uncounted, 'object')} of the truth without a pixel that counts (too small, no "
            "data, outside the area, or below another one)."
        )
    return tuple(notes)


def _build_record(done: MapEvaluation, truth: Path) -> dict[str, Any]:
    """Return all numbers by name."""
    record: dict[str, Any] = {"format": EVALUATION_FORMAT, "truth": {"path": str(Path(truth).absolute())}}
    record["truth"]["sha256"] = _hash_truth(Path(truth))
    record["pixel_m2"] = done.pixel_m2
    if done.comparison is not None:
        record |= build_comparison_record(done.comparison, done.pixel_m2)
    if done.sample is not None and done.accuracy is not None:
        record["sample"] = build_accuracy_record(done.sample, done.accuracy)
    return {**record, "notes": list(done.notes)}


def _hash_truth(path: Path) -> str:
    """Return the hash of the truth's content; of a folder (a file geodatabase), of the files in it by name."""
    if not path.is_dir():
        return hash_file(path)
    return hash_values({each.name: hash_file(each) for each in sorted(path.iterdir()) if each.is_file()})


def _replace_nan(value: Any) -> Any:
    """Return nested values with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _replace_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_replace_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
