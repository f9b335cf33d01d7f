"""IoU^c against the share of labels: one panel per data set, one line per method (and network), bars of the spread.

With a single share of labels the methods are listed below each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from semicdvl.atomic_files import write_atomically
from semicdvl.benchmarking.results import Outcome, ResultGroup, group_over_seeds

LINE_COLORS = ("#4477aa", "#ee6677", "#228833", "#aa3377", "#ccbb44", "#66ccee", "#777777")
"""Distinct to the colour-blind (Paul Tol's bright scheme)."""
MARKERS = "osD^vPX"
DASHES = ("-", "--", ":")
"""From the eighth line on colours come again, with another dash."""
POINT_OFFSET, MAX_TOTAL_OFFSET = 0.03, 0.12
"""Most by which (in powers of ten) points of neighbouring lines, and of the first and last one, are set apart, so that
their bars don't overlap."""


def write_plot(folder: Path, outcomes: Sequence[Outcome], *, title: str) -> tuple[Path, ...]:
    """Write plot.svg and plot.png and return them; nothing where no run has finished."""
    finished = [one for one in outcomes if one["status"] == "finished"]
    if not finished:
        return ()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = list(dict.fromkeys(one["data"] for one in finished))
    lines = {(one["method"], one["model"]) for one in finished}
    figure = Figure(figsize=(1.0 + 4.6 * len(data), max(4.0, 0.22 * len(lines))), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(data), squeeze=False)[0], data, strict=True):
        rows = group_over_seeds(one for one in finished if one["data"] == name)
        draw = _draw_label_curve if len({row.labelled for row in rows if row.labelled}) > 1 else _draw_single_share
        draw(axes, rows)
        axes.set_title(name, fontsize=10)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.suptitle(title, fontsize=11, parse_math=False)
    paths = (folder / "plot.svg", folder / "plot.png")
    for path in paths:
        with write_atomically(path) as temporary:
            figure.savefig(temporary, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _draw_single_share(axes: Any, rows: Sequence[ResultGroup]) -> None:
    """Draw one data set with one share of labels, if any: a line of text, a point and a bar for each row."""
    several = len({row.model for row in rows if row.labelled}) > 1
    shares = {f"{100 * row.labelled:.4g} %" for row in rows if row.labelled}
    for at, row in enumerate(rows):
        spread = row.compute_score_spread("test", "iou")
        if spread is not None:
            axes.errorbar(spread.mean, at, xerr=spread.deviation or 0.0, color=LINE_COLORS[0], marker="o", capsize=3)
    names = [f"{row.method}, {row.model}" if several and row.labelled else row.method for row in rows]
    both = len({row.labelled for row in rows}) > 1
    names = [
        f"{name} (no labels)" if both and not row.labelled else name for name, row in zip(names, rows, strict=True)
    ]
    axes.set_yticks(range(len(rows)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"IoU of the changed class, test, val-best; {', '.join(shares) or 'no'} labels")
    axes.grid(alpha=0.25)


def _draw_label_curve(axes: Any, rows: Sequence[ResultGroup]) -> None:
    """Draw one data set: lines over the share of labels."""
    unlabelled = [row for row in rows if not row.labelled]
    rows = [row for row in rows if row.labelled]
    lines: dict[tuple[str, str], list[ResultGroup]] = {}
    for row in rows:
        lines.setdefault((row.method, row.model), []).append(row)
    several = len({model for _, model in lines}) > 1
    apart = min(POINT_OFFSET, MAX_TOTAL_OFFSET / max(len(lines) - 1, 1))
    for at, ((method, model), some) in enumerate(lines.items()):
        points = sorted(
            (row.labelled, row.compute_score_spread("test", "iou"))
            for row in some
            if row.compute_score_spread("test", "iou")
        )
        x = [100 * share * 10 ** (apart * (at - (len(lines) - 1) / 2)) for share, _ in points]
        y = [spread.mean for _, spread in points if spread]
        bars = [spread.deviation or 0.0 for _, spread in points if spread]
        label = f"{method}, {model}" if several else method
        style: dict[str, Any] = {"color": LINE_COLORS[at % len(LINE_COLORS)], "marker": MARKERS[at % len(MARKERS)]}
        style |= {"markersize": 5, "linestyle": DASHES[at // len(LINE_COLORS) % len(DASHES)]}
        axes.errorbar(x, y, yerr=bars, label=label, capsize=3, linewidth=1.6, elinewidth=1.1, **style)
    for at, row in enumerate(unlabelled, len(lines)):
        _draw_level(axes, row, LINE_COLORS[at % len(LINE_COLORS)])
    shares = sorted({100 * row.labelled for row in rows})
    axes.set_xscale("log")
    axes.set_xticks(shares, [f"{share:.4g} %" for share in shares])
    axes.minorticks_off()
    axes.set_xlim(shares[0] / 1.5, shares[-1] * 1.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("pairs with a label")
    axes.set_ylabel("IoU of the changed class, test, val-best")
    axes.grid(alpha=0.25)
    many = len(lines) + len(unlabelled) >= len(LINE_COLORS)
    beside: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "fontsize": 7, "handlelength": 3.5}
    axes.legend(frameon=False, **(beside if many else {"fontsize": 9}))


def _draw_level(axes: Any, row: ResultGroup, colour: str) -> None:
    """Draw what needs no label as a dotted line over all shares of labels."""
    spread = row.compute_score_spread("test", "iou")
    if spread is not None:
        axes.axhline(spread.mean, color=colour, linestyle=(0, (1, 2)), linewidth=1.6, label=f"{row.method} (no labels)")
