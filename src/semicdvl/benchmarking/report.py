"""Outcomes of runs -> report.html: the plot, the tables, and every run; one self-contained file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from semicdvl.benchmarking.results import (
    DIFFERENCES_NOTE,
    SCORES_NOTE,
    SELECTED_STEPS,
    Outcome,
    TextTable,
    build_score_table,
    describe_status,
    format_percent,
    group_over_seeds,
    list_difference_tables,
    list_failures,
)
from semicdvl.reports import html


def write_report(
    path: Path,
    outcomes: Sequence[Outcome],
    *,
    title: str,
    compared: Sequence[tuple[str, str]],
    plot: Path | None,
    costs: Path | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        path: of the HTML file.
        outcomes: of all runs, failed ones too.
        title: of the page.
        compared: pairs of methods (a, b) whose difference a - b is shown.
        plot: the SVG of the scores that goes into the page; None where no run has finished.
        costs: the SVG of time and memory; None as well.
        notes: sentences for the end: what was left out, what it was made with.
    """
    sections = []
    if plot is not None:
        sections.append(html.Section("IoU of the changed class against labels", [_embed_svg(plot)]))
    if costs is not None:
        sections.append(html.Section("Time and memory of each method", [_embed_svg(costs)]))
    for data in dict.fromkeys(one["data"] for one in outcomes):
        own = [one for one in outcomes if one["data"] == data]
        parts = [_render_table(build_score_table(group_over_seeds(own)))]
        parts += [_render_table(table) for table in list_difference_tables(own, compared)]
        sections.append(html.Section(data, [*parts, html.render_notes(list_failures(own))]))
    words = [
        html.render_paragraph(strip_markdown(note)) for note in (SCORES_NOTE, DIFFERENCES_NOTE, *notes) if note.strip()
    ]
    sections.append(html.Section("How to read this", words))
    sections.append(html.Section("Every run", [_render_table(_list_runs(outcomes))]))
    finished = sum(one["status"] == "finished" for one in outcomes)
    html.write_page(path, title, sections, subtitle=f"{finished} of {len(outcomes)} runs finished")


def strip_markdown(note: str) -> str:
    """Return a sentence without Markdown's marks of stress."""
    return note.replace("*", "").strip()


def _embed_svg(plot: Path) -> Markup:
    """Return an SVG file as a part of the page, without the lines that stand before its element."""
    text = plot.read_text(encoding="utf-8")
    return Markup('<div class="scroll">{}</div>').format(Markup(text[text.index("<svg") :]))


def _render_table(table: TextTable) -> Markup:
    """Return a table as HTML."""
    return html.render_table(table.head, table.lines)


def _list_runs(outcomes: Sequence[Outcome]) -> TextTable:
    """Return a line per run: scores by step, time and memory."""
    head = ("data", "method", "network", "labels", "seed", *(f"IoU^c, {name}" for name in SELECTED_STEPS.values()))
    head += ("best step", "steps", "seconds", "memory MiB", "ended")
    lines = []
    for one in outcomes:
        place = (one["data"], one["method"], one["model"], format_percent(one["labelled"]), str(one["seed"]))
        scores = tuple(f"{one[key]['iou']:.3f}" if one.get(key) else "-" for key in SELECTED_STEPS)
        cost = tuple(
            f"{one[key]:.0f}" if one.get(key) is not None else "-" for key in ("best_step", "steps", "seconds")
        )
        memory = f"{one['peak_mib']:.0f}" if one.get("peak_mib") is not None else "-"
        lines.append((*place, *scores, *cost, memory, describe_status(one)))
    return TextTable(head, tuple(lines))
