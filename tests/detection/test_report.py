"""The report of a detection loads nothing and shows what was found."""

from html.parser import HTMLParser

from tests.support.brightness_detector import QUIET, TILES, Brighter

from semicdvl.detection.pipeline import write_detection


class Links(HTMLParser):
    """Collects tags and everything that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]


def test_report_stands_alone_and_shows_the_changes(tifs, tmp_path):
    write_detection(*tifs, tmp_path / "out", detector=Brighter(name="<b>&"), config=TILES, progress=QUIET)
    html = (tmp_path / "out" / "report.html").read_text()
    page = Links()
    page.feed(html)
    inside = [link for link in page.loaded if not link.startswith("data:image/")]
    assert inside == ["#object-2", "#object-1", "#object-3", "change.tif", "score.tif", "t1.tif", "t2.tif",
                      "changes.gpkg", "run.json"] and "url(" not in html  # fmt: skip
    assert all((tmp_path / "out" / link).is_file() for link in inside if not link.startswith("#"))
    assert all(f'id="{link[1:]}"' in html for link in inside if link.startswith("#"))
    assert "Show all 3 objects" in html and html.count("<details>") == 1
    assert page.tags.count("img") == 2 + 1 + 2 * 3 + 2, "swipe, overlay, crops of three objects, classes"
    assert "&lt;b&gt;&amp;" in html and "<b>&<" not in html
    for text in ("752 m²", "black border", "EPSG:32615", "dark → bright", "before.tif"):
        assert text in html, text
