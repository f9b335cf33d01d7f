"""IoU^c against the share of labels: one panel per data set, one line per method (and network), bars of the spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semicdvl.files import whole
from semicdvl.suite.results import Cell, Outcome, cells

COLOURS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#777777")
"""Distinct to the colour-blind (Paul Tol's bright scheme)."""
MARKERS = "osD^vPX"
SPREAD_OUT = 0.03
"""By how much (in powers of ten) the points of neighbouring lines are set apart, so that their bars don't overlap."""


def write_plot(folder: Path, outcomes: Sequence[Outcome], *, title: str) -> tuple[Path, ...]:
    """Write plot.svg and plot.png and return them; nothing where no run has finished."""
    finished = [one for one in outcomes if one["status"] == "finished"]
    if not finished:
        return ()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = list(dict.fromkeys(one["data"] for one in finished))
    figure = Figure(figsize=(1.0 + 4.6 * len(data), 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(data), squeeze=False)[0], data, strict=True):
        _panel(axes, cells(one for one in finished if one["data"] == name), name)
    figure.suptitle(title, fontsize=11)
    paths = (folder / "plot.svg", folder / "plot.png")
    for path in paths:
        with whole(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _panel(axes: Any, rows: Sequence[Cell], name: str) -> None:
    """Draw one data set."""
    lines: dict[tuple[str, str], list[Cell]] = {}
    for row in rows:
        lines.setdefault((row.method, row.model), []).append(row)
    several = len({model for _, model in lines}) > 1
    for at, ((method, model), some) in enumerate(lines.items()):
        points = sorted((row.labelled, row.spread("test", "iou")) for row in some if row.spread("test", "iou"))
        x = [100 * share * 10 ** (SPREAD_OUT * (at - (len(lines) - 1) / 2)) for share, _ in points]
        y = [spread.mean for _, spread in points if spread]
        bars = [spread.deviation or 0.0 for _, spread in points if spread]
        label = f"{method}, {model}" if several else method
        style = {"color": COLOURS[at % len(COLOURS)], "marker": MARKERS[at % len(MARKERS)], "markersize": 5}
        axes.errorbar(x, y, yerr=bars, label=label, capsize=3, linewidth=1.6, elinewidth=1.1, **style)
    shares = sorted({100 * row.labelled for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:.4g} %" for share in shares])
    axes.minorticks_off()
    axes.set_xlim(shares[0] / 1.5, shares[-1] * 1.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pairs with a label")
    axes.set_ylabel("IoU of the changed class, test")
    axes.set_title(name, fontsize=10)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
