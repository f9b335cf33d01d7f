"""The report of a pseudo-label store: the VLM's answers, the labels made from them, and the effect of other gammas.

Everything is read from the store and the images; the VLM is never asked.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from semicdvl.ceg.config import LEVELS_WITHOUT_GAMMA, CEGSettings
from semicdvl.ceg.transitions import ChangeObject, list_change_objects
from semicdvl.pseudo_labels.generate import read_stored_pair
from semicdvl.pseudo_labels.quality import (
    DEFAULT_GAMMAS,
    LABEL_VALUES,
    AnsweredPair,
    LabelQuality,
    measure_quality,
    read_answered_pair,
    select_evenly,
)
from semicdvl.pseudo_labels.store import STORE_FOLDERS, PseudoLabelStore
from semicdvl.pseudo_labels.store_spec import StoreSpec
from semicdvl.raster.vector.object_stats import UNSURE
from semicdvl.reports import colours as reports_colours
from semicdvl.reports import html, line_chart
from semicdvl.reports.numbers import format_count
from semicdvl.types import IGNORE, PairFiles

MAX_PICTURES = 8
"""Number of pairs that are shown."""
MAX_PICTURE_PX = 420
GAMMA_SWEEP = tuple(sorted({*DEFAULT_GAMMAS, 0.2, 0.4, 0.6, 0.7, 0.95}))


@dataclass(frozen=True)
class StoreStatistics:
    """Statistics of a store, from one pass over the pairs.

    Attributes:
        rows: quality of the labels for each gamma.
        objects: changed objects of every measured pair, by its name.
        changed_frac: name of a pair -> fraction of its pixels labelled as changed, with the store's settings.
    """

    rows: list[LabelQuality]
    objects: dict[str, list[ChangeObject]]
    changed_frac: dict[str, float]


def write_store_report(root: Path, pairs: Sequence[PairFiles], *, settings: CEGSettings, quiet: bool = False) -> Path:
    """Write report.html into the store at `root` and return its path.

    Args:
        root: folder of a store that holds the answers for `pairs`.
        pairs: pairs of the data set; if they have label files, the labels are measured against them.
        settings: settings of change event generation that the store's labels were made with.
        quiet: show no progress.

    Raises:
        StoreError: no store, or one without an answer for a pair.
        OutputError: the store cannot be written.
    """
    store, console = PseudoLabelStore.open(root), Console(stderr=True, quiet=quiet)

    def track_pairs(of: Iterable[PairFiles]) -> Iterable[PairFiles]:
        return track(list(of), description="report", console=console, transient=True)

    statistics = _collect_statistics(pairs, store, settings, track_pairs)
    current = next(row for row in statistics.rows if row.gamma == settings.gamma)
    sections = [
        _build_overview(pairs, store, settings, current, measured=len(statistics.objects)),
        _build_gamma_sweep(statistics.rows, settings),
        _build_transitions(statistics, settings),
        _build_pictures(pairs, store, settings, statistics),
        _build_provenance(pairs, store, settings),
    ]
    path = root / "report.html"
    title = f"Pseudo-labels by {store.spec.vlm.split('-')[0]} for {len(pairs):,} pair{'s' if len(pairs) != 1 else ''}"
    html.write_page(path, title, sections, subtitle=f"store {root.name}, level {settings.level}")
    return path


def _collect_statistics(
    pairs: Sequence[PairFiles],
    store: PseudoLabelStore,
    settings: CEGSettings,
    track_pairs: Callable[[Iterable[PairFiles]], Iterable[PairFiles]],
) -> StoreStatistics:
    """Measure every gamma and list the objects, on the labelled pairs if there are any."""
    some = [pair for pair in pairs if pair.has_label] or list(pairs)
    objects: dict[str, list[ChangeObject]] = {}
    changed: dict[str, float] = {}

    def add_pair(kept: AnsweredPair) -> None:
        labels = kept.make_labels(store.spec, settings)
        objects[kept.pair.name] = list_change_objects(
            labels, kept.t1, kept.t2, prompts=store.spec.searched, class_score=settings.gamma_segmentation
        )
        changed[kept.pair.name] = float((labels.change_HW == 1).mean())

    rows = measure_quality(
        some, store, settings=settings, gammas=GAMMA_SWEEP, track_pairs=track_pairs, on_pair=add_pair
    )
    return StoreStatistics(rows, objects, changed)


# ------------------------------------------------------------------------------------------------ sections
def _build_overview(
    pairs: Sequence[PairFiles], store: PseudoLabelStore, settings: CEGSettings, current: LabelQuality, *, measured: int
) -> html.Section:
    """Return the headline numbers; `measured` pairs are behind `current`."""
    kept = (path for kind in STORE_FOLDERS for path in (store.root / kind).glob("*/*") if not path.name.startswith("."))
    size = sum(path.stat().st_size for path in kept)
    where = "of the pixels" if measured == len(pairs) else f"of the pixels of {format_count(measured, 'measured pair')}"
    values = [
        (f"{len(pairs):,}", "pairs"),
        (f"{current.reliable_frac:.1%}", f"{where} have a label (gamma {settings.gamma:g})"),
        (f"{current.changed_frac:.2%}", f"{where} are labelled as changed"),
        (f"{size / 1e6:,.1f} MB", "of answers and labels in the store"),
    ]
    if current.valid.total:
        values[3:3] = [
            (_format_score(current.valid.iou), "IoU over the pixels with a label"),
            (_format_score(current.total.iou), "IoU over all pixels"),
        ]
    warnings = []
    if current.changed_frac == 0:
        warnings.append("No pixel is labelled as changed. Lower gamma, or check the prompts.")
    if settings.level in LEVELS_WITHOUT_GAMMA:
        warnings.append(f"At the {settings.level} level every pixel has a label, whatever gamma is.")
    lead = _describe_prompts(store.spec)
    return html.Section("Overview", [html.render_headline(values), html.render_notes(warnings)], lead=lead)


def _describe_prompts(spec: StoreSpec) -> str:
    """Return in words what the VLM was asked for."""
    if spec.classes is None:
        return f"Searched for {', '.join(spec.prompts.find)}; background: {', '.join(spec.prompts.background)}."
    return f"Classes: {', '.join(spec.classes.names)}; change is that of {', '.join(spec.classes.changing)}."


def _list_prompts(spec: StoreSpec) -> dict[str, str]:
    """Return the prompts of each concept, or of each class."""
    if spec.classes is None:
        return {"Searched for": ", ".join(spec.prompts.find), "Background": ", ".join(spec.prompts.background)}
    named = zip(spec.classes.names, spec.classes.words, strict=True)
    classes = {f"Class {at}: {name}": ", ".join(words) or "no prompt" for at, (name, words) in enumerate(named)}
    return classes | {"Change is that of": ", ".join(spec.classes.changing)}


def _build_gamma_sweep(rows: Sequence[LabelQuality], settings: CEGSettings) -> html.Section:
    """Return the table and the chart of the effect of gamma."""
    known = any(row.valid.total for row in rows)
    columns = ["gamma", "with label", "changed"]
    if known:
        columns += [f"{name} ({over})" for over in ("valid", "total") for name in ("precision", "recall", "IoU")]
    table = []
    for row in rows:
        mark = " (in force)" if row.gamma == settings.gamma else ""
        cells = [f"{row.gamma:g}{mark}", f"{row.reliable_frac:.1%}", f"{row.changed_frac:.2%}"]
        for counts in (row.valid, row.total) if known else ():
            cells += [_format_score(score) for score in (counts.precision, counts.recall, counts.iou)]
        table.append(cells)
    lines = [
        line_chart.ChartLine("fraction with a label", [row.reliable_frac for row in rows], (110, 110, 118), dashed=True)
    ]
    if known:
        lines += [
            line_chart.ChartLine("precision (valid)", [row.valid.precision for row in rows], (0, 114, 178)),
            line_chart.ChartLine("recall (valid)", [row.valid.recall for row in rows], (213, 94, 0)),
            line_chart.ChartLine("IoU (valid)", [row.valid.iou for row in rows], (0, 130, 95)),
            line_chart.ChartLine("IoU (total)", [row.total.iou for row in rows], (150, 70, 140)),
        ]
    chart = line_chart.render_line_chart([row.gamma for row in rows], lines, marked=settings.gamma, x_title="gamma")
    lead = (
        "A pixel has a label where the best score of both dates reaches gamma, so a higher gamma leaves fewer pixels. "
        "Computed from the stored answers: another gamma needs no new answers."
    )
    if known:
        lead += (
            " Valid: over the pixels with a label. Total: over all pixels, those without a label counted as unchanged."
        )
    return html.Section("Effect of gamma", [chart, html.render_table(columns, table)], lead=lead)


def _format_score(score: float) -> str:
    return "–" if math.isnan(score) else f"{score:.3f}"


def _build_transitions(statistics: StoreStatistics, settings: CEGSettings) -> html.Section:
    """Return the number of objects per transition."""
    found = [one for objects in statistics.objects.values() for one in objects]
    kinds = Counter((one.kind, one.from_class, one.to_class) for one in found)
    rows, swatches = [], []
    for (kind, start, end), many in kinds.most_common(15):
        mine = [one for one in found if (one.kind, one.from_class, one.to_class) == (kind, start, end)]
        area_px = sum(one.area_px for one in mine)
        score = sum(one.score * one.area_px for one in mine) / max(area_px, 1)
        rows.append([kind, f"{start} → {end}", f"{many:,}", f"{area_px:,}", f"{score:.2f}"])
        swatches.append(reports_colours.KIND_COLOURS[kind])
    many_pairs = f"{len(statistics.objects):,} pair{'s' if len(statistics.objects) != 1 else ''}"
    lead = (
        f"The changed objects of {many_pairs} by their classes before and after; scores are averaged by area. A class "
        f"is '{UNSURE}' where its mean score is below {settings.gamma_segmentation:g}, the threshold of single dates."
    )
    if not rows:
        return html.Section("Transitions", [html.render_paragraph("No object changed.")], lead=lead)
    table = html.render_table(["kind", "from → to", "objects", "px", "score"], rows, swatches=swatches)
    return html.Section("Transitions", [table], lead=lead)


def _build_provenance(pairs: Sequence[PairFiles], store: PseudoLabelStore, settings: CEGSettings) -> html.Section:
    spec = store.spec
    facts = {
        "VLM": spec.vlm,
        **_list_prompts(spec),
        "Level": settings.level,
        "Thresholds": f"gamma {settings.gamma:g}, for single dates {settings.gamma_segmentation:g}, "
        f"delta {settings.delta:g}, objects from score {settings.instance_score:g} and {settings.min_area_px} px",
        "Options": ", ".join(f"{name} {getattr(settings, name)}" for name in settings.active_options) or "none",
        "Metres per pixel": "unknown" if spec.gsd_m is None else f"{spec.gsd_m:g}",
        "First image": str(pairs[0].before),
        "Store": str(store.root),
    }
    return html.Section("Settings", [html.render_facts(facts)])


# ------------------------------------------------------------------------------------------------ pictures
def _build_pictures(
    pairs: Sequence[PairFiles], store: PseudoLabelStore, settings: CEGSettings, statistics: StoreStatistics
) -> html.Section:
    """Show some pairs: those with the most change, and others evenly selected."""
    names = sorted(statistics.changed_frac, key=lambda name: -statistics.changed_frac[name])[: MAX_PICTURES // 2]
    names += [
        pair.name
        for pair in select_evenly([pair for pair in pairs if pair.name not in names], MAX_PICTURES - len(names))
    ]
    chosen = [pair for pair in pairs if pair.name in names]
    words = store.spec.prompts.words
    parts = [
        html.render_legend(zip(words, reports_colours.choose_class_colours(words), strict=True)),
        html.render_legend([("changed", reports_colours.CHANGED_COLOUR), ("no label", reports_colours.NO_DATA_COLOUR)]),
    ]
    if any(pair.has_label for pair in chosen):
        parts.append(html.render_legend(reports_colours.OUTCOME_COLOURS.items()))
    parts += [_build_pair(pair, store, settings) for pair in chosen]
    lead = "The pairs with the most change, and others evenly selected. Grey hatching: no label."
    return html.Section("Examples", parts, lead=lead)


def _build_pair(pair: PairFiles, store: PseudoLabelStore, settings: CEGSettings) -> Markup:
    """Show one pair: both dates, both answers, the label, and its comparison with the true label."""
    content = read_stored_pair(pair, store.spec, label_values=LABEL_VALUES)
    kept = read_answered_pair(pair, store, settings=settings)
    labels = kept.make_labels(store.spec, settings)
    colours = reports_colours.choose_class_colours(store.spec.prompts.words)
    figures = [
        html.render_figure(_shrink_image(content.t1_HWC), "before"),
        html.render_figure(_shrink_image(content.t2_HWC), "after"),
        html.render_figure(
            _draw_label(content.t2_HWC, labels.change_HW, {1: reports_colours.CHANGED_COLOUR}), "change label"
        ),
        *(
            html.render_figure(_draw_answer(segments.scores_CHW, label_HW, colours), f"answer {name}", lossless=True)
            for segments, label_HW, name in ((kept.t1, labels.t1_HW, "before"), (kept.t2, labels.t2_HW, "after"))
        ),
    ]
    if content.label_HW is not None:
        compared_HW = _compare_with_truth(labels.change_HW, content.label_HW)
        truth = _draw_label(
            content.t2_HWC, compared_HW, dict(enumerate(reports_colours.OUTCOME_COLOURS.values(), start=1))
        )
        figures.append(html.render_figure(truth, "comparison with the true label"))
    known_HW = labels.change_HW != IGNORE
    changed = f"{(labels.change_HW == 1).mean():.1%} are labelled as changed"
    line = f"{known_HW.mean():.0%} of the pixels have a label, {changed}"
    heading = Markup("<h3>{}</h3><p>{}</p>").format(pair.name, line)
    return heading + html.render_gallery(figures, least_px=290)


def _shrink_image(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image no larger than a picture of the page."""
    scale = min(1.0, MAX_PICTURE_PX / max(image_HWC.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in image_HWC.shape[1::-1])
    return np.asarray(cv2.resize(image_HWC, size, interpolation=cv2.INTER_AREA), np.uint8)


def _resize_map(map_HW: NDArray[np.uint8], small: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a map of classes at the size of a picture."""
    size = small.shape[1::-1]
    return np.asarray(cv2.resize(map_HW, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _draw_answer(
    scores_CHW: NDArray[np.float32], label_HW: NDArray[np.uint8], colours: Sequence[reports_colours.Colour]
) -> NDArray[np.uint8]:
    """Return the winning prompts in their colours, paler where the VLM is unsure."""
    colour_HWC = _shrink_image(reports_colours.apply_palette(scores_CHW.argmax(axis=0).astype(np.uint8), colours))
    unsure_HW = _resize_map(label_HW, colour_HWC) == IGNORE
    pale_HWC = (0.35 * colour_HWC + 0.65 * 255).astype(np.uint8)
    return np.where(unsure_HW[..., None], pale_HWC, colour_HWC)


def _draw_label(
    image_HWC: NDArray[np.uint8], map_HW: NDArray[np.uint8], colours: dict[int, reports_colours.Colour]
) -> NDArray[np.uint8]:
    """Paint a map over a pale grey image; IGNORE is hatched, values without a colour stay unpainted."""
    small_HWC = _shrink_image(image_HWC)
    shown_HW = _resize_map(map_HW, small_HWC)
    known = sorted(colours)
    numbers_HW = np.zeros(shown_HW.shape, np.int32)
    for number, value in enumerate(known, 1):
        numbers_HW[shown_HW == value] = number
    painted_HWC = reports_colours.draw_overlay(small_HWC, numbers_HW, [colours[value] for value in known])
    return reports_colours.hatch_no_data(painted_HWC, shown_HW != IGNORE)


def _compare_with_truth(change_HW: NDArray[np.uint8], truth_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 correctly detected, 2 falsely detected, 3 missed, 0 unchanged, IGNORE without label or true label."""
    compared_HW = np.select(
        [(change_HW == 1) & (truth_HW == 1), change_HW == 1, truth_HW == 1], [1, 2, 3], default=0
    ).astype(np.uint8)
    compared_HW[(change_HW == IGNORE) | (truth_HW == IGNORE)] = IGNORE
    return compared_HW
