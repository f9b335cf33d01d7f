"""Outcomes of runs -> costs.svg: time and peak memory of each method.

Two panels per data set, a line of text for each method, a point per share of labels, bars of the spread over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import write_atomically
from semicdvl.benchmarking.plot import LINE_COLORS, MARKERS
from semicdvl.benchmarking.results import Outcome, ResultGroup, format_percent, group_over_seeds

MEMORY_AXES = {"peak_gpu_mib": "peak memory of the GPU, MiB", "peak_mib": "peak memory of the process, MiB"}
"""What is drawn of memory: the first of them that was measured."""


def write_cost_plot(folder: Path, outcomes: Sequence[Outcome], *, title: str) -> Path | None:
    """Write costs.svg and return it; None where no run has finished."""
    finished = [one for one in outcomes if one["status"] == "finished"]
    if not finished:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    groups = {
        name: group_over_seeds(one for one in finished if one["data"] == name) for name in (o["data"] for o in finished)
    }
    heights = [1.3 + 0.24 * len(_group_by_method(rows)) for rows in groups.values()]
    figure = Figure(figsize=(10.0, 0.4 + sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(groups), 2, squeeze=False, sharey="row", height_ratios=heights)
    for (name, rows), (left, right) in zip(groups.items(), panels, strict=True):
        memory = next((key for key in MEMORY_AXES if any(row.compute_cost_spread(key) for row in rows)), "peak_mib")
        _draw_cost_panel(left, rows, "seconds", "seconds per run, evaluation included")
        _draw_cost_panel(right, rows, memory, MEMORY_AXES[memory])
        left.set_title(name, fontsize=10)
        if len({row.labelled for row in rows}) > 1:
            right.legend(frameon=False, fontsize=8, title="labels", title_fontsize=8)
    figure.suptitle(title, fontsize=11, parse_math=False)
    with write_atomically(folder / "costs.svg") as temporary:
        figure.savefig(temporary, metadata={"Date": None})
    return folder / "costs.svg"


def _group_by_method(rows: Sequence[ResultGroup]) -> dict[str, list[ResultGroup]]:
    """Group the cells of a data set by method, and by network where there are several."""
    several = len({row.model for row in rows}) > 1
    found: dict[str, list[ResultGroup]] = {}
    for row in rows:
        found.setdefault(f"{row.method}, {row.model}" if several else row.method, []).append(row)
    return found


def _draw_cost_panel(axes: Any, rows: Sequence[ResultGroup], key: str, words: str) -> None:
    """Draw one cost of all methods on a data set."""
    lines = _group_by_method(rows)
    for at, share in enumerate(sorted({row.labelled for row in rows})):
        label, style = format_percent(share) if share else "none", MARKERS[at % len(MARKERS)]
        for place, some in enumerate(lines.values()):
            spread = next((row.compute_cost_spread(key) for row in some if row.labelled == share), None)
            if spread is not None:
                colour, bar = LINE_COLORS[at % len(LINE_COLORS)], spread.deviation or 0.0
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
