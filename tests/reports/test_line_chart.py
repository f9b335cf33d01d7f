"""The chart of values over a threshold: where points lie, what the legend says, what the page loads."""

import re

from semicdvl.reports.line_chart import ChartLine, render_line_chart

THRESHOLDS = [0.2, 0.4, 0.6]
LINES = [
    ChartLine("up", [0.0, float("nan"), 1.0], (255, 0, 0)),
    ChartLine("half", [0.5, 0.5, 0.5], (0, 0, 255), dashed=True),
]


def render() -> str:
    return str(render_line_chart(THRESHOLDS, LINES, marked=0.4, x_title="gamma"))


def points(svg: str, colour: str) -> list[tuple[float, float]]:
    """Return the marked points of the line in a colour: x from the left, y from the top."""
    marked = re.findall(r'<use xlink:href="#[^"]*" x="([0-9.]+)" y="([0-9.]+)" style="fill: ([^;"]+)', svg)
    return [(float(x), float(y)) for x, y, found in marked if found == colour]


def test_points_lie_where_their_values_are():
    (first, last, _), (*half, _) = points(render(), "#ff0000"), points(render(), "#0000ff")  # the last: the legend's
    assert len(half) == 3 and first[0] == half[0][0] < half[1][0] < half[2][0] == last[0]
    assert last[1] < half[0][1] < first[1], "larger values are further up"
    assert abs(half[0][1] - (first[1] + last[1]) / 2) < 0.01 and len({y for _, y in half}) == 1


def test_the_legend_names_the_lines_and_the_threshold_in_force():
    svg = render()
    for text in ("up", "half", "gamma", "gamma 0.4 (in force)"):
        assert f">{text}</text>" in svg, text


def test_the_chart_loads_nothing_and_is_the_same_every_time():
    svg = render()
    assert svg == render() and "http" not in svg and "nan" not in svg
    assert not re.search(r'(src|href)="(?!#)', svg)
