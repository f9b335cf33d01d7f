"""The page that lists the results of many pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from markupsafe import Markup

from semicdvl.detection.results import format_area
from semicdvl.reports import html

if TYPE_CHECKING:
    from semicdvl.detection.batch.pairs_table import PairsTable
    from semicdvl.detection.batch.run import PairOutcome


def write_batch_report(path: Path, outcomes: Sequence[PairOutcome], *, table: PairsTable) -> None:
    """Write the page.

    Args:
        path: the file; the results lie in folders beside it.
        outcomes: of the pairs that had their turn.
        table: the pairs that were asked for.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    failed = [(one.name, one.error) for one in outcomes if one.objects is None]
    noted = [(one.name, line) for one in outcomes for line in one.warnings]
    sections = [html.Section("Pairs", [_build_headline(outcomes, len(table.pairs)), _build_table(outcomes)])]
    if failed:
        lead = "Mend what is named and run the same command again: what is done is not done twice."
        why = html.render_table(("Pair", "Why"), failed, words=("Pair", "Why"))
        sections.insert(0, html.Section("Failed", [why], lead=lead))
    if noted:
        notes = html.render_table(("Pair", "Note"), noted, words=("Pair", "Note"))
        sections.append(html.Section("Notes", [notes], lead="What a reader of a result should know."))
    title = f"Changes in {len(table.pairs)} pair{'' if len(table.pairs) == 1 else 's'}"
    html.write_page(path, title, sections, subtitle=f"Table: {table.path.name}")


def _build_headline(outcomes: Sequence[PairOutcome], count: int) -> Markup:
    """Return the headline: how far it is, how many objects, how much ground."""
    well = [one for one in outcomes if one.objects is not None]
    boxes = [
        (f"{len(well)} of {count}", "pairs done"),
        (f"{sum(one.objects or 0 for one in well):,}", "changed objects"),
    ]
    on_ground = [one.changed_m2 for one in well if one.changed_m2 is not None]
    if on_ground:
        boxes.append((format_area(sum(on_ground), metric=True), "changed ground"))
    return html.render_headline(boxes)


def _build_table(outcomes: Sequence[PairOutcome]) -> Markup:
    """Return one line per pair."""
    columns = ("Pair", "", "Kinds of change", "Objects", "Changed", "Share", "Notes")
    caption = "Share: of the ground seen at both dates."
    return html.render_table(columns, [_build_row(one) for one in outcomes], caption=caption, words=columns[:3])


def _build_row(one: PairOutcome) -> tuple[object, ...]:
    if one.objects is None:
        return one.name, "failed", None, None, None, None, None
    link = Markup('<a href="{}/report.html">{}</a>').format(quote(one.name), one.name)
    area = format_area(one.changed_m2 or float(one.changed_px or 0), metric=one.changed_m2 is not None)
    kinds = ", ".join(f"{many} {kind}" for kind, many in one.by_kind.items())
    share = f"{(one.changed_px or 0) / max(one.seen_px or 0, 1):.2%}"
    state = "done before" if one.state == "kept" else "done"
    return link, state, kinds, one.objects, area, share, len(one.warnings) or None
