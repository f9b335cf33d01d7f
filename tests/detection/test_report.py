"""The report of a detection loads nothing and shows what was found."""

from html.parser import HTMLParser

import cv2
import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from tests.support.brightness_detector import QUIET, TILES, Brighter

from semicdvl.detection import report
from semicdvl.detection.pipeline import write_detection
from semicdvl.raster.grid import Grid
from semicdvl.raster.vector.polygonise import trace_outlines


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


def test_an_outline_of_very_many_corners_is_burnt_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture is the same to two of a hundred pixels, those at the outline."""
    noise_HW = cv2.GaussianBlur(np.random.default_rng(3).standard_normal((1000, 1200)), (0, 0), 4)
    grid = Grid(None, Affine(0.5, 0, 300, 0, -0.5, 900), 1200, 1000)
    (outline,) = trace_outlines((noise_HW > -0.02).astype(np.int32), 1, grid.transform)
    handed = []
    rasterize = report.rasterize
    monkeypatch.setattr(
        report, "rasterize", lambda shapes, **more: rasterize([handed.append(one[0]) or one for one in shapes], **more)
    )
    frame, pictures = gpd.GeoDataFrame(geometry=[outline]), []
    for most in (100, 10**9):
        monkeypatch.setattr(report, "MAX_BURNT_CORNERS", most)
        burnt_HW = np.zeros((250, 300), np.int32)
        report._burn_polygons(frame, grid, burnt_HW, values=[4])
        pictures.append(burnt_HW == 5)
    fewer, all_of_them = (shapely.get_num_coordinates(one) for one in handed)
    assert all_of_them == shapely.get_num_coordinates(outline) > 20_000 and fewer < all_of_them / 4
    assert 0.3 < pictures[1].mean() < 0.95 and (pictures[0] != pictures[1]).mean() < 0.02
