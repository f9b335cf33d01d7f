"""Outcomes of runs -> costs.svg: time and peak memory of each method.

Two panels per data set, a line of text for each method, a point per share of labels, bars of the spread over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import whole
from semicdvl.benchmark.plot import COLOURS, MARKERS
from semicdvl.benchmark.results import Cell, Outcome, cells, percent

MIB = {"peak_gpu_mib": "peak memory of the GPU, MiB", "peak_mib": "peak memory of the process, MiB"}
"""What is drawn of memory: the first of them that was measured."""


def write_costs(folder: Path, outcomes: Sequence[Outcome], *, title: str) -> Path | None:
    """Write costs.svg and return it; None where no run has finished."""
    finished = [one for one in outcomes if one["status"] == "finished"]
    if not finished:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = {name: cells(one for one in finished if one["data"] == name) for name in (o["data"] for o in finished)}
    heights = [1.3 + 0.24 * len(_lines(rows)) for rows in groups.values()]
    figure = Figure(figsize=(10.0, 0.4 + sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 2, squeeze=False, sharey="row", height_ratios=heights)
    for (name, rows), (left, right) in zip(groups.items(), panels, strict=True):
        memory = next((key for key in MIB if any(row.cost(key) for row in rows)), "peak_mib")
        _panel(left, rows, "seconds", "seconds per run, evaluation included")
        _panel(right, rows, memory, MIB[memory])
        left.set_title(name, fontsize=10)
        if len({row.labelled for row in rows}) > 1:
            right.legend(frameon=False, fontsize=8, title="labels", title_fontsize=8)
    figure.suptitle(title, fontsize=11)
    with whole(folder / "costs.svg") as temporary:
        figure.savefig(temporary, metadata={"Date": None})
    return folder / "costs.svg"


def _lines(rows: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Group the cells of a data set by method, and by network where there are several."""
    several = len({row.model for row in rows}) > 1
    found: dict[str, list[Cell]] = {}
    for row in rows:
        found.setdefault(f"{row.method}, {row.model}" if several else row.method, []).append(row)
    return found


def _panel(axes: Any, rows: Sequence[Cell], key: str, words: str) -> None:
    """Draw one cost of all methods on a data set."""
    lines = _lines(rows)
    for at, share in enumerate(sorted({row.labelled for row in rows})):
        label, style = percent(share) if share else "not trained", MARKERS[at % len(MARKERS)]
        for place, some in enumerate(lines.values()):
            spread = next((row.cost(key) for row in some if row.labelled == share), None)
            if spread is not None:
                colour, bar = COLOURS[at % len(COLOURS)], spread.deviation or 0.0
                axes.errorbar(
                    spread.mean, place, xerr=bar, color=colour, marker=style, capsize=3, linestyle="", label=label
                )
                label = "_"  # one entry of the legend is enough
    axes.set_yticks(range(len(lines)), list(lines))
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(words)
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
