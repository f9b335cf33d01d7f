"""A flow chart for a page: how much of each class became which, as inline SVG (a Sankey diagram of two columns)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from semicdvl.reports.colours import Colour

WIDTH, LABEL_WIDTH, BAR_WIDTH = 760, 190, 16
HEIGHT, GAP, TOP = 300, 10, 26
LEAST_LABEL = 11.0
"""Height of a label: bars that are lower are set apart by it, so that labels don't overlap."""


def render_flow_chart(
    names: Sequence[str],
    colours: Sequence[Colour],
    amounts_KK: NDArray[np.float64],
    *,
    titles: tuple[str, str],
    format_amount: Callable[[float], str],
) -> Markup:
    """Return the chart; classes without any amount on a side are left out there.

    Args:
        names: of the classes.
        colours: of the classes.
        amounts_KK: how much of the class of the row, on the left, became that of the column, on the right.
        titles: of both sides.
        format_amount: an amount with its unit.
    """
    scale = HEIGHT / max(float(amounts_KK.sum()), 1e-9)
    sides = [_place_bars(amounts_KK.sum(axis=1 - side) * scale) for side in (0, 1)]
    height = max(bars_K2[:, 1].max() for bars_K2 in sides) + GAP
    left, right = LABEL_WIDTH + BAR_WIDTH, WIDTH - LABEL_WIDTH - BAR_WIDTH
    starts, ends = (bars_K2[:, 0].copy() for bars_K2 in sides)
    drawn = []
    for before, after in np.argwhere(amounts_KK).tolist():
        thick = float(amounts_KK[before, after] * scale)
        y1, y2 = starts[before], ends[after]
        starts[before], ends[after] = y1 + thick, y2 + thick
        label = f"{names[before]} → {names[after]}: {format_amount(float(amounts_KK[before, after]))}"
        drawn.append(_draw_band((left, y1), (right, y2), thick, colours[before], label))
    for side, bars_K2 in enumerate(sides):
        totals_K = amounts_KK.sum(axis=1 - side)
        for at in np.flatnonzero(totals_K).tolist():
            drawn.append(
                _draw_bar(side, bars_K2[at], colours[at], f"{names[at]}, {format_amount(float(totals_K[at]))}")
            )
    heads = Markup('<text x="{}" y="14" text-anchor="end">{}</text><text x="{}" y="14">{}</text>').format(
        left, titles[0], right, titles[1]
    )
    return Markup(
        '<div class="scroll"><svg viewBox="0 0 {} {:.0f}" role="img" aria-label="{} to {}">{}{}</svg></div>'
    ).format(WIDTH, height, *titles, heads, Markup("").join(drawn))


def _place_bars(heights_K: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return top and bottom of each bar, below each other; a low one takes the room of its label."""
    bars_K2, top = np.zeros((len(heights_K), 2)), float(TOP)
    for at, height in enumerate(heights_K):
        if height > 0:
            top += max(0.0, LEAST_LABEL - height) / 2
            bars_K2[at] = top, top + height
            top += height + max(0.0, LEAST_LABEL - height) / 2 + GAP
    return bars_K2


def _draw_band(
    start: tuple[float, float], end: tuple[float, float], thick: float, colour: Colour, label: str
) -> Markup:
    """Return the band from a bar on the left to one on the right; both are their upper corners."""
    (x1, y1), (x2, y2) = start, end
    middle = (x1 + x2) / 2
    path = (
        f"M{x1:.1f} {y1:.2f} C{middle:.1f} {y1:.2f} {middle:.1f} {y2:.2f} {x2:.1f} {y2:.2f} v{thick:.2f} "
        f"C{middle:.1f} {y2 + thick:.2f} {middle:.1f} {y1 + thick:.2f} {x1:.1f} {y1 + thick:.2f} Z"
    )
    band = Markup('<path d="{}" style="fill:rgb({},{},{});fill-opacity:.5;stroke:none"><title>{}</title></path>')
    return band.format(path, *colour, label)


def _draw_bar(side: int, bar_2: NDArray[np.float64], colour: Colour, label: str) -> Markup:
    """Return a bar and its label beside it; side 0 is on the left."""
    x = LABEL_WIDTH if side == 0 else WIDTH - LABEL_WIDTH - BAR_WIDTH
    text_x, anchor = (x - 6, "end") if side == 0 else (x + BAR_WIDTH + 6, "start")
    bar = Markup(
        '<rect x="{}" y="{:.2f}" width="{}" height="{:.2f}" style="fill:rgb({},{},{})"/>'
        '<text x="{}" y="{:.1f}" text-anchor="{}">{}</text>'
    )
    top, bottom = bar_2.tolist()
    return bar.format(x, top, BAR_WIDTH, max(bottom - top, 0.5), *colour, text_x, (top + bottom) / 2 + 4, anchor, label)
