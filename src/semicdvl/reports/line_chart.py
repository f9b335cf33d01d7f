"""A line chart for a page: shares between 0 and 1 over a threshold, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from semicdvl.reports.html import Colour

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 320, 44, 150, 14, 48
LABEL_LEAST_PX = 17
"""Distance of the names at the lines' right ends: closer ones are moved apart."""


@dataclass(frozen=True)
class ChartLine:
    """One line: its name, a value per threshold (NaN: none), its colour."""

    name: str
    values: Sequence[float]
    colour: Colour
    dashed: bool = False


def render_line_chart(at: Sequence[float], lines: Sequence[ChartLine], *, marked: float, x_title: str) -> Markup:
    """Return the chart.

    Args:
        at: thresholds, ascending.
        lines: each with one value per threshold.
        marked: the threshold that is set off by a vertical line.
        x_title: what the threshold is called.
    """
    low, high = at[0], at[-1] if at[-1] > at[0] else at[0] + 1

    def x_of(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    drawn = [_grid(), *(_tick(x_of(value), f"{value:g}") for value in _apart(at, x_of))]
    rule = Markup('<line x1="{x:.1f}" x2="{x:.1f}" y1="{}" y2="{}" style="stroke:var(--soft)" stroke-dasharray="2 4"/>')
    drawn.append(rule.format(TOP, HEIGHT - BOTTOM, x=x_of(marked)))
    drawn += [_line(line, [x_of(value) for value in at]) for line in lines]
    drawn += _names(lines)
    title = Markup('<text x="{:.0f}" y="{}" text-anchor="middle">{} (dotted: {:g}, in force)</text>')
    drawn.append(title.format((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_title, marked))
    return Markup('<div class="scroll"><svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg></div>').format(
        WIDTH, HEIGHT, f"{', '.join(line.name for line in lines)} by {x_title}", Markup("").join(drawn)
    )


def _y_of(value: float) -> float:
    return TOP + (1 - value) * (HEIGHT - TOP - BOTTOM)


def _grid() -> Markup:
    """Return the horizontal lines at 0, 20, ... 100 %."""
    rows = []
    for step in range(6):
        y = _y_of(step / 5)
        rows.append(Markup('<line x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(LEFT, WIDTH - RIGHT, y=y))
        rows.append(
            Markup('<text x="{}" y="{:.1f}" text-anchor="end">{}</text>').format(LEFT - 8, y + 4, f"{step / 5:g}")
        )
    return Markup("").join(rows)


def _apart(at: Sequence[float], x_of: object) -> list[float]:
    """Return the thresholds whose names don't run into each other."""
    assert callable(x_of)
    kept: list[float] = []
    for value in at:
        if not kept or x_of(value) - x_of(kept[-1]) >= 34:
            kept.append(value)
    return kept


def _tick(x: float, name: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>').format(x, HEIGHT - BOTTOM + 18, name)


def _line(line: ChartLine, xs: Sequence[float]) -> Markup:
    """Return a line with a dot at every value; a NaN is left out."""
    points = [(x, _y_of(value)) for x, value in zip(xs, line.values, strict=True) if not math.isnan(value)]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    colour = f"rgb({line.colour[0]} {line.colour[1]} {line.colour[2]})"
    dash = Markup(' stroke-dasharray="7 5"') if line.dashed else Markup("")
    drawn = Markup('<polyline points="{}" fill="none" stroke="{}" stroke-width="2.5"{}/>').format(path, colour, dash)
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.2" fill="{}"/>')
    return drawn + Markup("").join(dot.format(x, y, colour) for x, y in points)


def _names(lines: Sequence[ChartLine]) -> list[Markup]:
    """Return the names beside the lines' ends, moved apart where they would overlap."""
    ends = []
    for line in lines:
        values = [value for value in line.values if not math.isnan(value)]
        if values:
            ends.append((_y_of(values[-1]), line))
    ends.sort(key=lambda end: end[0])
    named, last = [], -math.inf
    overflow = max(0.0, len(ends) * LABEL_LEAST_PX - (HEIGHT - BOTTOM - TOP))
    for index, (y, line) in enumerate(ends):
        room = HEIGHT - BOTTOM + 4 - (len(ends) - 1 - index) * LABEL_LEAST_PX + overflow
        last = max(last + LABEL_LEAST_PX, min(y + 4, room))
        text = Markup('<text x="{}" y="{:.1f}" style="fill:rgb({} {} {})">{}</text>')
        named.append(text.format(WIDTH - RIGHT + 10, last, *line.colour, line.name))
    return named
