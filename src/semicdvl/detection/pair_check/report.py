"""The report of a check: the verdict, both dates, how they are registered to each other, and the numbers."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from semicdvl.detection.pair_check.results import PairCheck, format_shift
from semicdvl.raster.io.pair_reader import PairWindow, RasterPair
from semicdvl.raster.registration.shift import Shift
from semicdvl.reports import colours, html

CHECK_OVERVIEW_PX, IMAGE_PX, ZOOM_PX = 1300, 700, 384
CHECKERBOARD_FIELDS = 10
ARROW_PX = 38
"""The longest arrow is drawn this long."""
AGREES, DISAGREES = (20, 130, 60), (170, 110, 30)


def write_check_report(path: Path, pair: RasterPair, check: PairCheck) -> None:
    """Write check.html.

    Raises:
        OutputError: the folder cannot be written.
        InputError: a file is damaged.
    """
    sections = [
        _build_verdict(check),
        _build_overlay(pair),
        *_build_shift(pair, check.shift),
        _build_images(pair),
        _build_numbers(check),
    ]
    names = ["/".join(date.path.parts[-2:]) for date in (pair.before, pair.after)]
    html.write_page(path, f"Image pair check: {check.meaning}", sections, subtitle=f"{names[0]} and {names[1]}")


# ------------------------------------------------------------------------------------------------ sections
def _build_verdict(check: PairCheck) -> html.Section:
    """Build the section with the numbers that decide, the findings and what to do about them."""
    shift = check.shift
    headline = [
        (f"{max(check.overlap_before_frac, check.overlap_after_frac):.0%}", "of the smaller image lies in the overlap"),
        (f"{check.radiometry.common_frac:.0%}", "of the overlap has data at both dates"),
        (f"{shift.length_px:.1f} px" if shift.is_certain else "unknown", "shift between the dates"),
        (f"{max((b.correlation for b in check.radiometry.bands), default=0):.2f}", "correlation between the dates"),
    ]
    severe = [str(finding) for finding in check.findings if finding.level]
    rest = [str(finding) for finding in check.findings if not finding.level]
    parts = [html.render_headline(headline), html.render_notes(severe), *(html.render_paragraph(line) for line in rest)]
    lead = "Findings, and what to do about them." if severe else "The pair is ready for a detection."
    return html.Section("At a glance", parts, lead=lead)


def _build_overlay(pair: RasterPair) -> html.Section:
    """Build the section in which the dates lie over each other: a swipe, and checkerboards of all and of the middle."""
    window = pair.read_overview(max_px=CHECK_OVERVIEW_PX)
    before, after = (colours.hatch_no_data(image, window.valid_HW) for image in (window.t1_HWC, window.t2_HWC))
    side = max(12, -(-max(window.valid_HW.shape) // CHECKERBOARD_FIELDS))
    centre = _read_centre(pair)
    wide = centre.valid_HW.shape[1]
    near = f"The middle of the overlap, {wide} px wide: streets and roofs should continue from field to field."
    parts = [
        html.render_swipe(before, after, "Move the line to compare the dates. Hatched: no data at one date or both."),
        Markup("<br>"),
        html.render_gallery(
            [
                html.render_figure(_draw_checkerboard(window, side), "Before and after in alternating fields."),
                html.render_figure(_enlarge(_draw_checkerboard(centre, max(16, ZOOM_PX // 8))), near),
            ],
            least_px=420,
        ),
    ]
    return html.Section("Overlay", parts)


def _build_shift(pair: RasterPair, shift: Shift) -> list[html.Section]:
    """Build the section of the shifts of single windows; there is none where no window could be measured."""
    if not shift.local:
        return []
    lead = format_shift(shift)[0].upper() + format_shift(shift)[1:] + "."
    agreeing = [at for at in shift.local if at.agrees] if shift.is_known else []
    parts = [html.render_figure(_draw_arrows(pair, shift), _describe_arrows(shift))]
    parts.append(html.render_legend([("agrees with the neighbouring windows", AGREES), ("disagrees", DISAGREES)]))
    if agreeing:
        away = np.hypot(*np.array([(at.row_px - shift.row_px, at.col_px - shift.col_px) for at in agreeing]).T)
        edges = np.array([0, 0.25, 0.5, 1, 2, 4, 1000])
        names = ["< 0.25", "0.25–0.5", "0.5–1", "1–2", "2–4", "> 4"]
        counts = np.histogram(away, edges)[0]
        values = [(name, float(many)) for name, many in zip(names, counts, strict=True)]
        parts.append(html.render_bar_chart(values, x_title="distance from the median shift in px", y_title="windows"))
    return [html.Section("Registration", parts, lead=lead)]


def _describe_arrows(shift: Shift) -> str:
    """Return the caption of the arrows."""
    longest = _measure_longest_arrow(shift)
    if not shift.is_known:
        return "One arrow per window, showing the direction only. They do not agree, so the shift is not known."
    return (
        "One arrow per window, from the position of an object in the before image to its position in the after image; "
        f"the longest arrow drawn is {longest:.1f} px. A dot means no shift."
    )


def _build_images(pair: RasterPair) -> html.Section:
    """Build the section with each date by itself, where only its own pixels without data are hatched."""
    figures = []
    for date, name in ((pair.before, "before"), (pair.after, "after")):
        height, width = date.grid.height, date.grid.width
        step = max(1.0, max(height, width) / IMAGE_PX)
        image_HWC, valid_HW = date.read(
            0, 0, height, width, shape_hw=(max(1, round(height / step)), max(1, round(width / step)))
        )
        caption = f"{name}: {date.path.name}, {1 - valid_HW.mean():.1%} without data"
        figures.append(html.render_figure(colours.hatch_no_data(image_HWC, valid_HW), caption))
    lead = "The overlap at each date. Hatched: no data at that date."
    return html.Section("Each date on its own", [html.render_gallery(figures, least_px=420)], lead=lead)


def _build_numbers(check: PairCheck) -> html.Section:
    """Build the section of tables: the files, the values of every band, and how the dates differ in them."""
    bands = []
    for date, seen in (("before", check.radiometry.before), ("after", check.radiometry.after)):
        for band in seen.bands:
            clipped, dark = f"{band.saturated_frac:.1%}", f"{band.dark_frac:.1%}"
            values = [f"{value:.4g}" for value in (band.low, band.median, band.high, band.mean, band.std)]
            bands.append([f"{date}, band {band.band}", *values, clipped, dark])
    heads = ["", "0.5 %", "median", "99.5 %", "mean", "std", "saturated", "zero"]
    light = [
        [
            name,
            f"{b.mean_difference:+.1f}",
            f"{b.gain:.2f}",
            f"{b.offset:+.1f}",
            f"{b.residual:.1f}",
            f"{b.correlation:.2f}",
        ]
        for name, b in zip(("red", "green", "blue"), check.radiometry.bands, strict=False)
    ]
    light_heads = ["", "after − before", "gain", "offset", "residual", "correlation"]
    parts = [
        html.render_table(["", "before", "after"], [list(row) for row in check.format_rows()]),
        html.render_facts(dict(check.format_lines())),
        html.render_table(heads, bands, caption="Values as stored in the files, over the pixels with data."),
    ]
    if light:
        caption = "The after image compared with the before image, in grey values (0-255), where both have data."
        parts.append(html.render_table(light_heads, light, caption=caption))
    return html.Section("Numbers", parts)


# ------------------------------------------------------------------------------------------------ pictures
def _draw_checkerboard(window: PairWindow, side: int) -> NDArray[np.uint8]:
    """Return both dates in fields of `side` px in turn."""
    rows, cols = (np.arange(size) // side for size in window.valid_HW.shape)
    odd_HW = np.add.outer(rows, cols) % 2 == 1
    return colours.hatch_no_data(np.where(odd_HW[..., None], window.t2_HWC, window.t1_HWC), window.valid_HW)


def _read_centre(pair: RasterPair) -> PairWindow:
    """Return the part of the overlap around its middle, or around the middle of what has data."""
    height, width = pair.shape_hw
    tall, wide = min(ZOOM_PX, height), min(ZOOM_PX, width)
    seen_HW = pair.read_overview(max_px=256).valid_HW
    share_HW = cv2.boxFilter(seen_HW.astype(np.float32), -1, (9, 9))
    rows, cols = (np.linspace(-1, 1, size) for size in seen_HW.shape)
    row, col = np.unravel_index(int(np.argmax(share_HW - 0.2 * np.add.outer(rows**2, cols**2))), seen_HW.shape)
    top = int((row + 0.5) / seen_HW.shape[0] * height - tall / 2)
    left = int((col + 0.5) / seen_HW.shape[1] * width - wide / 2)
    return pair.read(min(max(top, 0), height - tall), min(max(left, 0), width - wide), tall, wide)


def _enlarge(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)


def _measure_longest_arrow(shift: Shift) -> float:
    """Return the length of the longest arrow that counts."""
    lengths = [np.hypot(at.row_px, at.col_px) for at in shift.local if at.agrees] if shift.is_known else []
    return max([0.5, *map(float, lengths)])


def _draw_arrows(pair: RasterPair, shift: Shift) -> NDArray[np.uint8]:
    """Draw the local shifts, enlarged, over a pale view of the before image."""
    window = pair.read_overview(max_px=CHECK_OVERVIEW_PX)
    pale = colours.draw_overlay(window.t1_HWC, np.zeros(window.valid_HW.shape, np.int32), [])
    canvas = np.ascontiguousarray(colours.hatch_no_data(pale, window.valid_HW))
    grow = 1
    if max(canvas.shape) < CHECK_OVERVIEW_PX // 2:
        grow = CHECK_OVERVIEW_PX // 2 // max(canvas.shape[:2]) + 1
        canvas = np.ascontiguousarray(cv2.resize(canvas, None, fx=grow, fy=grow, interpolation=cv2.INTER_LINEAR))
    step = pair.shape_hw[0] / canvas.shape[0], pair.shape_hw[1] / canvas.shape[1]
    scale = ARROW_PX / _measure_longest_arrow(shift)
    for at in shift.local:
        start = round(at.col / step[1]), round(at.row / step[0])
        by = np.array([at.col_px, at.row_px]) * scale
        by = by * min(1.0, 1.2 * ARROW_PX / max(float(np.hypot(*by)), 1e-9))
        end = round(start[0] + by[0]), round(start[1] + by[1])
        colour = AGREES if at.agrees and shift.is_known else DISAGREES
        for width, ink in ((5, (255, 255, 255)), (2, colour)):
            cv2.arrowedLine(canvas, start, end, ink, width, cv2.LINE_AA, tipLength=0.3)
            cv2.circle(canvas, start, width, ink, -1, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)
