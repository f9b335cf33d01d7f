"""The report of a batch: the results of all pairs with links to their reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from semicdvl.detection.batch.outcomes import PairOutcome
from semicdvl.detection.batch.pairs_table import PairsTable
from semicdvl.reports import html
from semicdvl.reports.numbers import format_area, format_count


def write_batch_report(path: Path, outcomes: Sequence[PairOutcome], *, table: PairsTable) -> None:
    """Write index.html.

    Args:
        path: the file; the results lie in folders beside it.
        outcomes: of the pairs that were processed so far.
        table: all pairs.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    failed = [(one.name, one.error) for one in outcomes if one.objects is None]
    noted = [(one.name, line) for one in outcomes for line in one.warnings]
    sections = [html.Section("Pairs", [_build_headline(outcomes, len(table.pairs)), _build_table(outcomes)])]
    if failed:
        lead = "Correct the errors and run the same command again: finished pairs are not processed twice."
        why = html.render_table(("Pair", "Error"), failed, words=("Pair", "Error"))
        sections.insert(0, html.Section("Failed", [why], lead=lead))
    if noted:
        notes = html.render_table(("Pair", "Note"), noted, words=("Pair", "Note"))
        sections.append(html.Section("Notes", [notes], lead="What a reader of a result should know."))
    title = f"Changes in {format_count(len(table.pairs), 'pair')}"
    html.write_page(path, title, sections, subtitle=f"Table: {table.path.name}")


def _build_headline(outcomes: Sequence[PairOutcome], count: int) -> Markup:
    """Return the headline: pairs, objects and changed area."""
    well = [one for one in outcomes if one.objects is not None]
    objects = sum(one.objects or 0 for one in well)
    boxes = [
        (f"{len(well)} of {count}", "pairs done"),
        (f"{objects:,}", "changed object" if objects == 1 else "changed objects"),
    ]
    on_ground = [one.changed_m2 for one in well if one.changed_m2 is not None]
    if on_ground:
        boxes.append((format_area(sum(on_ground), metric=True), "changed area"))
    return html.render_headline(boxes)


def _build_table(outcomes: Sequence[PairOutcome]) -> Markup:
    """Return one line per pair."""
    columns = ("Pair", "State", "Kinds of change", "Objects", "Changed", "Share", "Notes")
    caption = "Share: of the pixels with data at both dates."
    return html.render_table(columns, [_build_row(one) for one in outcomes], caption=caption, words=columns[:3])


def _build_row(one: PairOutcome) -> tuple[object, ...]:
    """Return the cells of a pair; those that a failed one lacks are None."""
    if one.objects is None:
        return one.name, "failed", None, None, None, None, None
    link = Markup('<a href="{}/report.html">{}</a>').format(quote(one.name), one.name)
    kinds = ", ".join(f"{many} {kind}" for kind, many in one.by_kind.items())
    share = f"{(one.changed_px or 0) / max(one.seen_px or 0, 1):.2%}"
    state = "done before" if one.state == "kept" else "done"
    return link, state, kinds, one.objects, one.area_text, share, len(one.warnings) or None
