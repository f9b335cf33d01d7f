"""A line chart for a page: values between 0 and 1 over a threshold, as inline SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from semicdvl.reports.colours import Colour

SIZE_INCH = (7.6, 3.3)
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: the page chooses its font and colour, in the dark, too
    "svg.hashsalt": "semicdvl",  # the same chart is the same file
    "font.size": 9,
    "axes.edgecolor": "#9aa4ae",
    "xtick.color": "#9aa4ae",
    "xtick.labelcolor": "black",  # black is the default of SVG, which the page replaces by the colour of its text
    "ytick.color": "#9aa4ae",
    "ytick.labelcolor": "black",
    "grid.color": "#9aa4ae",
    "grid.alpha": 0.35,
}


@dataclass(frozen=True)
class ChartLine:
    """One line of a chart.

    Attributes:
        name: shown in the legend.
        values: one per threshold; NaN leaves a gap.
        colour: RGB, 0 to 255.
        dashed: draw it dashed.
    """

    name: str
    values: Sequence[float]
    colour: Colour
    dashed: bool = False


def render_line_chart(at: Sequence[float], lines: Sequence[ChartLine], *, marked: float, x_title: str) -> Markup:
    """Return the chart.

    Args:
        at: the thresholds, ascending.
        lines: each with one value per threshold.
        marked: the threshold in force, marked by a vertical line.
        x_title: name of the threshold.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=SIZE_INCH, layout="constrained")
        axes = figure.subplots()
        for line in lines:
            colour, style = tuple(value / 255 for value in line.colour), "--" if line.dashed else "-"
            axes.plot(at, line.values, label=line.name, color=colour, linestyle=style, marker="o", markersize=4)
        axes.axvline(marked, color="#9aa4ae", linestyle=":", label=f"{x_title} {marked:g} (in force)")
        axes.set(ylim=(-0.02, 1.02), xlabel=x_title)
        axes.grid(axis="y")
        axes.spines[["top", "right", "left"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False)
        buffer = io.StringIO()
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    drawn = re.sub(r' xmlns(:xlink)?="[^"]*"', "", buffer.getvalue())  # HTML knows them
    return Markup('<div class="scroll">{}</div>').format(Markup(drawn[drawn.index("<svg") :]))
