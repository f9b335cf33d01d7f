"""Vector formats: every registered one keeps its contract, and a new one is a file and a registry line."""

from pathlib import Path

import geopandas as gpd
import pytest
from rich.console import Console
from tests.support.object_scenes import PLAIN, UTM, build_plain_frame
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.errors import ConfigError
from semicdvl.raster.vector.files import get_vector_format, write_vector
from semicdvl.raster.vector.formats import VECTOR_FORMATS

FORMAT = """
class WellKnownText:
    def write(self, path, frame, *, layer, style):
        lines = [f"{row.id};{row.kind};{row.geometry.wkt}" for row in frame.itertuples()]
        path.write_text(chr(10).join([layer, *lines]))


def build_well_known_text():
    return WellKnownText()
"""


@pytest.mark.parametrize("name", VECTOR_FORMATS)
@pytest.mark.parametrize("grid", [UTM, PLAIN], ids=["utm", "plain"])
def test_every_format_keeps_objects_and_crs(tmp_path, name, grid):
    path, frame = tmp_path / f"changes.{name}", build_plain_frame(grid)
    write_vector(path, frame)
    back = gpd.read_parquet(path) if name == "parquet" else gpd.read_file(path)
    assert back.sort_values("id")["score"].tolist() == frame.sort_values("id")["score"].tolist()
    if name != "geojson":  # which is in longitude and latitude
        assert back.union_all().equals(frame.union_all()) and (back.crs is None) == (grid is PLAIN)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.fixture
def new_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A format in a module of its own, registered for the length of a test."""
    (tmp_path / "well_known_text.py").write_text(FORMAT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(VECTOR_FORMATS, "wkt", "well_known_text:build_well_known_text")
    return "wkt"


def test_a_new_format_is_a_file_and_a_line(tmp_path, new_format):
    frame = build_plain_frame()
    write_vector(tmp_path / f"changes.{new_format}", frame, layer="found")
    lines = (tmp_path / "changes.wkt").read_text().splitlines()
    assert lines[0] == "found" and len(lines) == 1 + len(frame) and "MULTIPOLYGON" in lines[1]
    with pytest.raises(ConfigError, match=r"one of .*\.wkt"):
        get_vector_format(Path("changes.shp"))


def test_detect_writes_a_new_format(tmp_path, new_format):
    from semicdvl.detection.config import DetectionConfig
    from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
    from semicdvl.detection.pipeline import write_detection

    after = city(64, 96)
    after[:, 20:40, 30:60] = 250
    files = tif(tmp_path / "a.tif", city(64, 96), at(0, 90)), tif(tmp_path / "b.tif", after, at(0, 90))
    write_detection(*files, tmp_path / "out", detector=build_unsupervised_detector("cva"),
                     config=DetectionConfig(polygons=(new_format,)), progress=Console(quiet=True))  # fmt: skip
    lines = (tmp_path / "out" / "changes.wkt").read_text().splitlines()
    objects = gpd.read_file(tmp_path / "out" / "changes.gpkg", layer="changes")
    assert lines[0] == "changes" and len(lines) == 1 + len(objects)
