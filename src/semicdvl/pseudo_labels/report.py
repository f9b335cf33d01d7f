"""The page of a pseudo-label store: what the VLM answered, what labels came of it, and what another gamma would do.

Everything is read from the store and from the images; the VLM is never asked.
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

from semicdvl.ceg.config import CEGSettings
from semicdvl.ceg.transitions import ChangeObject, list_change_objects
from semicdvl.data.pairs import read_pair
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
from semicdvl.reports import colours as reports_colours
from semicdvl.reports import html, line_chart
from semicdvl.types import IGNORE, PairFiles

MAX_PICTURES = 8
"""Pairs that are shown."""
MAX_PICTURE_PX = 420
GAMMA_SWEEP = tuple(sorted({*DEFAULT_GAMMAS, 0.2, 0.4, 0.6, 0.7, 0.95}))
CHANGED_COLOUR, CORRECT_COLOUR, FALSE_COLOUR, MISSED_COLOUR = (230, 60, 40), (0, 114, 178), (213, 94, 0), (240, 200, 40)
NO_LABEL_COLOUR = (188, 188, 188)


@dataclass(frozen=True)
class StoreStatistics:
    """What one pass over the pairs has gathered.

    Attributes:
        rows: the numbers for each gamma.
        objects: the changed objects of every pair that was looked at.
        changed_frac: name of a pair -> share of its pixels that say changed, under the settings in force.
    """

    rows: list[LabelQuality]
    objects: dict[str, list[ChangeObject]]
    changed_frac: dict[str, float]


def write_store_report(root: Path, pairs: Sequence[PairFiles], *, settings: CEGSettings) -> Path:
    """Write report.html into the store at `root` and return its path.

    Args:
        root: a store that holds the answers for `pairs`.
        pairs: of the data set; with label files, the labels are measured against them.
        settings: of change event generation, as the store's labels were made with.

    Raises:
        StoreError: no store, or one without an answer for a pair.
        OutputError: the store cannot be written.
    """
    store, console = PseudoLabelStore.open(root), Console(stderr=True)

    def shown(of: Iterable[PairFiles]) -> Iterable[PairFiles]:
        return track(list(of), description="report", console=console, transient=True)

    looked = _collect_statistics(pairs, store, settings, shown)
    force = next(row for row in looked.rows if row.gamma == settings.gamma)
    sections = [
        _build_overview(pairs, store, settings, force),
        _build_gamma_sweep(looked.rows, settings),
        _build_transitions(looked, store),
        _build_pictures(pairs, store, settings, looked),
        _build_provenance(pairs, store, settings),
    ]
    path = root / "report.html"
    title = f"What {store.spec.vlm.split('-')[0]} says of {len(pairs):,} pair{'s' if len(pairs) != 1 else ''}"
    html.write_page(path, title, sections, subtitle=f"pseudo labels of the store {root.name}, level {settings.level}")
    return path


def _collect_statistics(
    pairs: Sequence[PairFiles],
    store: PseudoLabelStore,
    settings: CEGSettings,
    shown: Callable[[Iterable[PairFiles]], Iterable[PairFiles]],
) -> StoreStatistics:
    """Measure every gamma and list the objects, on labelled pairs only where there are some."""
    some = [pair for pair in pairs if pair.label is not None] or list(pairs)
    objects: dict[str, list[ChangeObject]] = {}
    changed: dict[str, float] = {}

    def noted(kept: AnsweredPair) -> None:
        labels = kept.make_labels(store.spec.prompts, settings)
        objects[kept.pair.name] = list_change_objects(labels, kept.t1, kept.t2, prompts=store.spec.prompts)
        changed[kept.pair.name] = float((labels.change_HW == 1).mean())

    rows = measure_quality(some, store, settings=settings, gammas=GAMMA_SWEEP, track_pairs=shown, on_pair=noted)
    return StoreStatistics(rows, objects, changed)


# ------------------------------------------------------------------------------------------------ sections
def _build_overview(
    pairs: Sequence[PairFiles], store: PseudoLabelStore, settings: CEGSettings, force: LabelQuality
) -> html.Section:
    kept = (path for kind in STORE_FOLDERS for path in (store.root / kind).glob("*/*") if not path.name.startswith("."))
    size = sum(path.stat().st_size for path in kept)
    values = [
        (f"{len(pairs):,}", "pairs"),
        (f"{force.reliable_frac:.1%}", f"of the pixels have a label (gamma {settings.gamma:g})"),
        (f"{force.changed_frac:.2%}", "of the pixels say changed"),
        (f"{size / 1e6:,.1f} MB", "of answers and labels in the store"),
    ]
    if force.valid.total:
        values[3:3] = [
            (_format_score(force.valid.iou), "IoU where there is a label"),
            (_format_score(force.total.iou), "IoU in total"),
        ]
    warnings = []
    if force.changed_frac == 0:
        warnings.append("No pixel says changed. Lower gamma, or look at the prompts.")
    if settings.level == "instance":
        warnings.append("At the level instance every pixel has a label, whatever gamma is.")
    lead = f"Looked for {', '.join(store.spec.prompts.find)} against {', '.join(store.spec.prompts.background)}."
    return html.Section("At a glance", [html.render_headline(values), html.render_notes(warnings)], lead=lead)


def _build_gamma_sweep(rows: Sequence[LabelQuality], settings: CEGSettings) -> html.Section:
    """Return the table and the chart of what each gamma does."""
    known = any(row.valid.total for row in rows)
    columns = ["gamma", "with label", "say changed"]
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
        line_chart.ChartLine("share with a label", [row.reliable_frac for row in rows], (110, 110, 118), dashed=True)
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
        "Computed from the kept answers: another gamma takes no new answer."
    )
    if known:
        lead += " Valid: over the pixels with a label. Total: over all, those without a label taken as unchanged."
    return html.Section("What each gamma does", [chart, html.render_table(columns, table)], lead=lead)


def _format_score(score: float) -> str:
    return "–" if math.isnan(score) else f"{score:.3f}"


def _build_transitions(looked: StoreStatistics, store: PseudoLabelStore) -> html.Section:
    """Return how often what became what."""
    found = [one for objects in looked.objects.values() for one in objects]
    kinds = Counter((one.kind, one.from_class, one.to_class) for one in found)
    rows, swatches = [], []
    for (kind, start, end), many in kinds.most_common(15):
        mine = [one for one in found if (one.kind, one.from_class, one.to_class) == (kind, start, end)]
        area_px = sum(one.area_px for one in mine)
        score = sum(one.score * one.area_px for one in mine) / max(area_px, 1)
        rows.append([kind, f"{start} → {end}", f"{many:,}", f"{area_px:,}", f"{score:.2f}"])
        swatches.append(reports_colours.KIND_COLOURS[kind])
    many_pairs = f"{len(looked.objects):,} pair{'s' if len(looked.objects) != 1 else ''}"
    lead = f"The changed objects of {many_pairs} and what they were before and after; the score is a mean by area."
    if not rows:
        return html.Section("From what to what", [html.render_paragraph("No object changed.")], lead=lead)
    table = html.render_table(["kind", "from → to", "objects", "px", "score"], rows, swatches=swatches)
    return html.Section("From what to what", [table], lead=lead)


def _build_provenance(pairs: Sequence[PairFiles], store: PseudoLabelStore, settings: CEGSettings) -> html.Section:
    spec = store.spec
    facts = {
        "VLM": spec.vlm,
        "Looked for": ", ".join(spec.prompts.find),
        "Against": ", ".join(spec.prompts.background),
        "Level": settings.level,
        "Thresholds": f"gamma {settings.gamma:g}, for single dates {settings.gamma_segmentation:g}, "
        f"delta {settings.delta:g}, objects from score {settings.instance_score:g} and {settings.min_area_px} px",
        "Options": ", ".join(f"{name} {getattr(settings, name)}" for name in settings.active_options) or "none",
        "Metres per pixel": "not told" if spec.gsd_m is None else f"{spec.gsd_m:g}",
        "First image": str(pairs[0].before),
        "Store": str(store.root),
    }
    return html.Section("How this was made", [html.render_facts(facts)])


# ------------------------------------------------------------------------------------------------ pictures
def _build_pictures(
    pairs: Sequence[PairFiles], store: PseudoLabelStore, settings: CEGSettings, looked: StoreStatistics
) -> html.Section:
    """Show some pairs: the ones with the most change, and others spread over the set."""
    names = sorted(looked.changed_frac, key=lambda name: -looked.changed_frac[name])[: MAX_PICTURES // 2]
    names += [
        pair.name
        for pair in select_evenly([pair for pair in pairs if pair.name not in names], MAX_PICTURES - len(names))
    ]
    chosen = [pair for pair in pairs if pair.name in names]
    words = store.spec.prompts.words
    parts = [
        html.render_legend(zip(words, reports_colours.choose_class_colours(words), strict=True)),
        html.render_legend([("changed", CHANGED_COLOUR), ("no label", NO_LABEL_COLOUR)]),
    ]
    if any(pair.label is not None for pair in chosen):
        against = [
            ("changed, and says so", CORRECT_COLOUR),
            ("says so wrongly", FALSE_COLOUR),
            ("changed, and missed", MISSED_COLOUR),
        ]
        parts.append(html.render_legend(against))
    parts += [_build_pair(pair, store, settings) for pair in chosen]
    lead = "The pairs with the most change and others, spread evenly. Grey stripes: no label."
    return html.Section("Some pairs", parts, lead=lead)


def _build_pair(pair: PairFiles, store: PseudoLabelStore, settings: CEGSettings) -> Markup:
    """Show one pair: both dates, both answers, the label, and the label against the truth."""
    content, kept = read_pair(pair, label_values=LABEL_VALUES), read_answered_pair(pair, store, settings=settings)
    labels = kept.make_labels(store.spec.prompts, settings)
    colours = reports_colours.choose_class_colours(store.spec.prompts.words)
    figures = [
        html.render_figure(_shrink_image(content.t1_HWC), "before"),
        html.render_figure(_shrink_image(content.t2_HWC), "after"),
        html.render_figure(_draw_label(content.t2_HWC, labels.change_HW, {1: CHANGED_COLOUR}), "change label"),
        *(
            html.render_figure(_draw_answer(segments.scores_CHW, label_HW, colours), f"answer {name}", lossless=True)
            for segments, label_HW, name in ((kept.t1, labels.t1_HW, "before"), (kept.t2, labels.t2_HW, "after"))
        ),
    ]
    if content.label_HW is not None:
        judged_HW = _compare_with_truth(labels.change_HW, content.label_HW)
        truth = _draw_label(content.t2_HWC, judged_HW, {1: CORRECT_COLOUR, 2: FALSE_COLOUR, 3: MISSED_COLOUR})
        figures.append(html.render_figure(truth, "against the truth"))
    known_HW = labels.change_HW != IGNORE
    line = f"{known_HW.mean():.0%} of the pixels have a label, {(labels.change_HW == 1).mean():.1%} say changed"
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
    """Return the winning words in their colours, paler where the VLM was unsure."""
    colour_HWC = _shrink_image(reports_colours.apply_palette(scores_CHW.argmax(axis=0).astype(np.uint8), colours))
    unsure_HW = _resize_map(label_HW, colour_HWC) == IGNORE
    pale_HWC = (0.35 * colour_HWC + 0.65 * 255).astype(np.uint8)
    return np.where(unsure_HW[..., None], pale_HWC, colour_HWC)


def _draw_label(
    image_HWC: NDArray[np.uint8], map_HW: NDArray[np.uint8], colours: dict[int, reports_colours.Colour]
) -> NDArray[np.uint8]:
    """Paint a map over a pale grey image; IGNORE is hatched, values without a colour are left as they are."""
    small_HWC = _shrink_image(image_HWC)
    shown_HW = _resize_map(map_HW, small_HWC)
    known = sorted(colours)
    numbers_HW = np.zeros(shown_HW.shape, np.int32)
    for number, value in enumerate(known, 1):
        numbers_HW[shown_HW == value] = number
    painted_HWC = reports_colours.draw_overlay(small_HWC, numbers_HW, [colours[value] for value in known])
    return reports_colours.hatch_no_data(painted_HWC, shown_HW != IGNORE)


def _compare_with_truth(change_HW: NDArray[np.uint8], truth_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return 1 changed and found, 2 found wrongly, 3 missed, 0 unchanged, IGNORE without a label or a truth."""
    judged_HW = np.select(
        [(change_HW == 1) & (truth_HW == 1), change_HW == 1, truth_HW == 1], [1, 2, 3], default=0
    ).astype(np.uint8)
    judged_HW[(change_HW == IGNORE) | (truth_HW == IGNORE)] = IGNORE
    return judged_HW
