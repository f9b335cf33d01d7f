import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from semicdvl.errors import OutputError
from semicdvl.reports import colours
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


def test_overlay_colours_objects_and_hatches_no_data():
    image = np.full((20, 30, 3), 100, np.uint8)
    labels = np.zeros((20, 30), np.int32)
    labels[5:10, 5:10], labels[12:15, 20:25] = 1, 2
    painted = colours.draw_overlay(image, labels, [(255, 0, 0), (0, 0, 255)])
    assert painted[7, 7, 0] > painted[7, 7, 2] + 100 and painted[13, 22, 2] > painted[13, 22, 0] + 100
    assert len(set(painted[0, 0].tolist())) == 1
    valid = np.ones((20, 30), bool)
    valid[:, 15:] = False
    shown = colours.hatch_no_data(painted, valid)
    assert (shown[:, :15] == painted[:, :15]).all() and len(np.unique(shown[:, 15:])) == 2


def test_outline_runs_around_the_mask():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    drawn = colours.draw_outline(np.full((40, 40, 3), 90, np.uint8), mask, side_px=400)
    assert drawn.shape == (400, 400, 3)
    assert (
        (drawn[100, 200] == colours.OUTLINE_COLOUR).all()
        and (drawn[200, 200] == 90).all()
        and (drawn[20, 20] == 90).all()
    )


def test_class_colours_differ():
    names = ["building", "road", "tree", "water", "solar panel", "crane", "tent"]
    assert len(set(colours.choose_class_colours(names))) == len(names)
    classes = np.array([[0, 3, 255]], np.uint8)
    assert (
        colours.apply_palette(classes, colours.choose_class_colours(names))[0, 1]
        == colours.COMMON_CLASS_COLOURS["water"]
    ).all()
