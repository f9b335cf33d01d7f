"""Pages: escaped text, tables, images and charts in one file."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from semicdvl.errors import OutputError
from semicdvl.reports import html as reports_html


def decoded(html: str) -> list[np.ndarray]:
    found = re.findall(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)", html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_page_holds_its_sections_escaped(tmp_path):
    sections = [
        reports_html.Section(
            "First <part>", [reports_html.render_paragraph("a < b"), reports_html.render_facts({"k&": "v"})], lead="why"
        ),
        reports_html.Section(
            "Second", [reports_html.render_notes(["look <here>"]), reports_html.render_headline([("3", "things")])]
        ),
    ]
    reports_html.write_page(tmp_path / "page.html", "Title & all", sections, subtitle="sub")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    for text in (
        "<h1>Title &amp; all</h1>",
        "First &lt;part&gt;",
        "a &lt; b",
        "k&amp;",
        "look &lt;here&gt;",
        "why",
        "sub",
    ):
        assert text in html
    assert html.index("First") < html.index("Second") and "prefers-color-scheme: dark" in html


def test_notes_without_lines_are_nothing():
    assert reports_html.render_notes([]) == ""


def test_table_sets_numbers_right_and_words_left():
    html = reports_html.render_table(["name", "area"], [["a", "1,200"], ["b", None], ["all", "1,200"]], total=True)
    assert html.count('<td class="number">') == 3 and '<th class="number">area</th>' in html
    assert '<tr class="total"><td>all</td>' in html and "<td>a</td>" in html


def test_pictures_keep_their_colours():
    image = np.zeros((24, 36, 3), np.uint8)
    image[:, :18] = (200, 30, 10)
    (lossless,) = decoded(reports_html.render_figure(image, "x", lossless=True))
    assert (lossless == image).all()
    (lossy,) = decoded(reports_html.render_figure(image))
    assert np.abs(lossy[4:-4, 4:14].astype(int) - (200, 30, 10)).max() < 12
    assert len(decoded(reports_html.render_swipe(image, image, "c"))) == 2


def test_bars_are_as_tall_as_their_values():
    html = reports_html.render_bar_chart([("a", 2), ("b", 8), ("c", 0)], x_title="x", y_title="y")
    tall = [float(value) for value in re.findall(r'height="([\d.]+)" rx', html)]
    assert tall[1] == pytest.approx(4 * tall[0]) and tall[2] == 0
    assert reports_html.render_bar_chart([], x_title="x", y_title="y").count("<rect") == 0


def test_unwritable_place_is_one_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        reports_html.write_page(tmp_path / "file" / "page.html", "t", [])


def test_notes_show_what_stands_in_backticks_as_code_and_stay_escaped():
    html = str(reports_html.render_notes(["Run `semicdvl detect <A>` & see; a lone ` stays."]))
    assert "<li>Run <code>semicdvl detect &lt;A&gt;</code> &amp; see; a lone ` stays.</li>" in html
