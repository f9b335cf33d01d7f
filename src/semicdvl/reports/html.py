"""Self-contained HTML pages: one file with its images inside, for any report of this package.

A page has a title and sections; a section has a title and parts, which the functions below render. Text is escaped,
nothing is loaded from elsewhere, and a page is readable on a phone, in dark mode and on paper.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from numpy.typing import NDArray

from semicdvl.atomic_files import write_atomically
from semicdvl.reports.colours import Colour
from semicdvl.version import __version__

JPEG_QUALITY = 84


@dataclass(frozen=True)
class Section:
    """A section of a page: a heading, a sentence below it, and parts that the functions of this module return."""

    title: str
    parts: Sequence[Markup]
    lead: str = ""


def write_page(path: Path, title: str, sections: Sequence[Section], *, subtitle: str = "") -> None:
    """Write a page atomically.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    loader = PackageLoader("semicdvl", "reports")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = environment.get_template("page.html.j2")
    footer = f"Made by semicdvl {__version__}."
    page = template.render(title=title, sections=sections, subtitle=subtitle, footer=footer)
    with write_atomically(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


# ------------------------------------------------------------------------------------------------ text and tables
def render_paragraph(words: str) -> Markup:
    """Return a paragraph."""
    return Markup("<p>{}</p>").format(words)


def render_notes(lines: Iterable[str]) -> Markup:
    """Return notes in a highlighted box, what stands in backticks as code; an empty string without notes."""
    items = Markup("").join(Markup("<li>{}</li>").format(_render_code(line)) for line in lines)
    return Markup('<ul class="notes">{}</ul>').format(items) if items else Markup("")


def _render_code(text: str) -> Markup:
    """Return a text, escaped, with what stands in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def render_link(address: str, text: str) -> Markup:
    """Return a link, to a place of the page (`#name`) or to a file beside it."""
    shown = address if address.startswith("#") else quote(address)
    return Markup('<a href="{}">{}</a>').format(shown, text)


def render_details(summary: str, content: Markup) -> Markup:
    """Return content that a click on its summary shows."""
    return Markup("<details><summary>{}</summary>{}</details>").format(summary, content)


def render_headline(values: Iterable[tuple[str, str]]) -> Markup:
    """Return headline numbers; each value is (number, what it counts)."""
    boxes = (Markup("<div><b>{}</b><span>{}</span></div>").format(value, label) for value, label in values)
    return Markup('<div class="numbers">{}</div>').format(Markup("").join(boxes))


def render_facts(pairs: Mapping[str, str]) -> Markup:
    """Return labels with their texts, line by line."""
    lines = (Markup("<dt>{}</dt><dd>{}</dd>").format(label, value) for label, value in pairs.items())
    return Markup("<dl>{}</dl>").format(Markup("").join(lines))


def render_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    *,
    caption: str = "",
    total: bool = False,
    swatches: Sequence[Colour] = (),
    words: Sequence[str] = (),
) -> Markup:
    """Return a table. A column whose cells all look like numbers is aligned to the right.

    Args:
        columns: headings.
        rows: cells; None is empty.
        caption: a sentence above the table.
        total: emphasise the last row.
        swatches: colours shown before the first cell of the first rows.
        words: headings of columns that are text even where their cells look like numbers.
    """
    numeric = [
        bool(rows) and name not in words and all(_is_number(row[at]) for row in rows) for at, name in enumerate(columns)
    ]
    kind = [' class="number"' if yes else "" for yes in numeric]
    head = Markup("").join(
        Markup("<th{}>{}</th>").format(Markup(mark), name) for mark, name in zip(kind, columns, strict=True)
    )
    body = []
    for index, row in enumerate(rows):
        cells = ["" if cell is None else escape(cell) for cell in row]
        if index < len(swatches):
            cells[0] = render_swatch(swatches[index]) + Markup("&ensp;") + cells[0]
        line = Markup("").join(
            Markup("<td{}>{}</td>").format(Markup(mark), cell) for mark, cell in zip(kind, cells, strict=True)
        )
        last = Markup(' class="total"' if total and index == len(rows) - 1 else "")
        body.append(Markup("<tr{}>{}</tr>").format(last, line))
    title = Markup("<caption>{}</caption>").format(caption) if caption else Markup("")
    return Markup('<div class="scroll"><table>{}<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>').format(
        title, head, Markup("").join(body)
    )


def _is_number(cell: Any) -> bool:
    return cell is None or isinstance(cell, int | float) or str(cell)[:1] in "0123456789+-−–<≥≈"


def render_swatch(colour: Colour) -> Markup:
    """Return a small square in a colour."""
    red, green, blue = colour
    return Markup('<span class="swatch" style="--of:rgb({} {} {})"></span>').format(red, green, blue)


def render_legend(entries: Iterable[tuple[str, Colour]]) -> Markup:
    """Return a legend of colours."""
    items = (Markup("<li>{}{}</li>").format(render_swatch(colour), name) for name, colour in entries)
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


# ------------------------------------------------------------------------------------------------ images
def encode_data_uri(image: NDArray[np.uint8], *, lossless: bool = False) -> str:
    """Return a uint8 HW or HWC RGB image as a data URI: a JPEG, or a PNG if `lossless`."""
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    options = [] if lossless else [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    kind = "png" if lossless else "jpeg"
    encoded = cv2.imencode(f".{kind}", turned, options)[1]
    return f"data:image/{kind};base64,{base64.b64encode(encoded.tobytes()).decode()}"


def render_figure(image: NDArray[np.uint8], caption: str = "", *, lossless: bool = False) -> Markup:
    """Return an image with a caption; `lossless` keeps the pixels of masks and class maps sharp when enlarged."""
    below = Markup("<figcaption>{}</figcaption>").format(caption) if caption else Markup("")
    return Markup('<figure{}><img src="{}" alt="{}" width="{}" height="{}">{}</figure>').format(
        Markup(' class="map"' if lossless else ""),
        encode_data_uri(image, lossless=lossless),
        caption,
        image.shape[1],
        image.shape[0],
        below,
    )


def render_gallery(figures: Iterable[Markup], *, least_px: int = 320) -> Markup:
    """Return figures side by side, as many in a row as fit with at least `least_px` each."""
    return Markup('<div class="gallery" style="--least:{}px">{}</div>').format(least_px, Markup("").join(figures))


def render_swipe(before: NDArray[np.uint8], after: NDArray[np.uint8], caption: str = "") -> Markup:
    """Return two images of one size on top of each other, with a movable line between them."""
    sizes = Markup('width="{}" height="{}"').format(before.shape[1], before.shape[0])
    move = Markup("this.parentNode.style.setProperty('--at', this.value + '%')")
    return Markup(
        '<figure><div class="swipe"><img src="{}" alt="before" {}><img src="{}" alt="after" {}>'
        '<span class="before">before</span><span class="after">after</span>'
        '<input type="range" min="0" max="100" value="50" step="0.1" aria-label="Position of the line" oninput="{}">'
        "</div><figcaption>{}</figcaption></figure>"
    ).format(encode_data_uri(before), sizes, encode_data_uri(after), sizes, move, caption)


def render_card(
    title: str, line: str, figures: Iterable[Markup], *, colour: Colour | None = None, name: str = ""
) -> Markup:
    """Return a framed box with a title, a line of facts and pairs of figures; links lead to it by its name."""
    mark = render_swatch(colour) if colour is not None else Markup("")
    anchor = Markup(' id="{}"').format(name) if name else Markup("")
    return Markup('<div class="card"{}><h3>{}{}</h3><p>{}</p><div class="pair">{}</div></div>').format(
        anchor, mark, title, line, Markup("").join(figures)
    )


def render_notebook_result(line: str, figures: Mapping[str, NDArray[np.uint8]], notes: Iterable[str]) -> Markup:
    """Return a result for a notebook: figures side by side, a line of numbers, notes; its style is in the tags.

    Args:
        line: the numbers.
        figures: caption -> RGB image.
        notes: what a reader should know.
    """
    cell = Markup(
        '<figure style="margin:0;flex:1 1 0;min-width:160px"><img src="{}" style="width:100%">'
        "<figcaption>{}</figcaption></figure>"
    )
    images = (cell.format(encode_data_uri(image), caption) for caption, image in figures.items())
    items = Markup("").join(Markup("<li>{}</li>").format(note) for note in notes)
    listed = Markup("<ul>{}</ul>").format(items) if items else Markup("")
    return Markup('<div><p>{}</p><div style="display:flex;gap:8px;max-width:1280px">{}</div>{}</div>').format(
        line, Markup("").join(images), listed
    )


def render_bar_chart(values: Sequence[tuple[str, float]], *, x_title: str, y_title: str) -> Markup:
    """Return a bar chart (inline SVG), one bar per (label, value), the value written above it."""
    width, height, left, bottom, top = 760, 300, 56, 50, 34
    most = max((value for _, value in values), default=0) or 1
    step = (width - left) / max(len(values), 1)
    drawn = []
    for index, (label, value) in enumerate(values):
        tall = (height - bottom - top) * value / most
        x, y = left + index * step, height - bottom - tall
        middle = x + step / 2
        bar = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" rx="3"/>')
        drawn.append(bar.format(x + step * 0.12, y, step * 0.76, tall))
        written = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="middle"{}>{}</text>')
        drawn.append(written.format(middle, height - bottom + 19, Markup(""), label))
        if value:
            drawn.append(written.format(middle, y - 6, Markup(' class="value"'), f"{value:g}"))
    return Markup(
        '<div class="scroll"><svg viewBox="0 0 {w} {h}" role="img" aria-label="{y} by {x}">'
        '<line x1="{l}" y1="{b}" x2="{w}" y2="{b}"/>{drawn}'
        '<text x="{mid}" y="{last}" text-anchor="middle">{x}</text>'
        '<text x="0" y="14">{y}</text></svg></div>'
    ).format(
        w=width, h=height, l=left, b=height - bottom, drawn=Markup("").join(drawn), mid=(left + width) / 2,
        last=height - 8, x=x_title, y=y_title,
    )  # fmt: skip
