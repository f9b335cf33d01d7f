"""A detection in memory finds and saves what the one that writes a folder does."""

import json
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from affine import Affine
from rich.console import Console
from tests.support.synthetic_rasters import at, city, tif

from semicdvl.ceg.prompts import PROMPT_SETS
from semicdvl.detection.config import DetectionConfig
from semicdvl.detection.detectors.vlm_ceg import build_vlm_detector
from semicdvl.detection.inputs import ArrayImage
from semicdvl.detection.output_folder import OUTPUT_FILES
from semicdvl.detection.pipeline import detect_in_memory, write_detection
from semicdvl.errors import ConfigError, InputError, OutputError
from semicdvl.vlms.models.fake import FakeVLM

QUIET = Console(quiet=True)
TILES = DetectionConfig(tile_px=96, overlap_px=32, min_area_m2=3.0)
PLACE = at(366_676, 4_104_256)
RASTERS = ("change.tif", "score.tif", "t1.tif", "t2.tif")


def detector():
    return build_vlm_detector(FakeVLM(), prompts=PROMPT_SETS["buildings"])


@dataclass(frozen=True)
class Pair:
    """Two images of 150 x 230 px, in files and in memory."""

    before: Path
    after: Path
    before_HWC: np.ndarray
    after_HWC: np.ndarray


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    t1_CHW, t2_CHW = city(150, 230, seed=1), city(150, 230, seed=1)
    t2_CHW[:, 60:100, 80:150] = 230
    t1_CHW[:, :, :20] = 0
    before, after = tif(folder / "before.tif", t1_CHW, PLACE), tif(folder / "after.tif", t2_CHW, PLACE)
    return Pair(before, after, t1_CHW.transpose(1, 2, 0), t2_CHW.transpose(1, 2, 0))


@pytest.fixture(scope="module")
def written(pair, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("written") / "out"
    write_detection(pair.before, pair.after, out, detector=detector(), config=TILES, progress=QUIET)
    return out


def read(path: Path) -> np.ndarray:
    with rasterio.open(path) as source:
        return source.read(1)


def test_files_give_the_rasters_and_objects_of_the_folder(pair, written):
    with detect_in_memory(pair.before, pair.after, detector=detector(), config=TILES, progress=QUIET) as result:
        np.testing.assert_array_equal(result.change, read(written / "change.tif"))
        np.testing.assert_array_equal(result.score, read(written / "score.tif"))
        np.testing.assert_array_equal(result.t2, read(written / "t2.tif"))
        objects = gpd.read_file(written / "changes.gpkg", layer="changes")
        assert len(result.objects) == len(objects) == result.summary.objects > 0
        np.testing.assert_allclose(result.objects["area_m2"], objects["area_m2"])
        assert result.grid.crs == rasterio.CRS.from_epsg(32615) and result.gsd_m == pytest.approx(0.5)
        assert result.warnings == tuple(json.loads((written / "run.json").read_text())["warnings"])


def test_save_writes_the_bytes_of_the_folder(pair, written, tmp_path):
    with detect_in_memory(pair.before, pair.after, detector=detector(), config=TILES, progress=QUIET) as result:
        saved = result.save(tmp_path / "out")
    assert sorted(path.name for path in saved.folder.iterdir()) == sorted(OUTPUT_FILES)
    for name in (*RASTERS, "changes.gpkg", "changes.qml"):
        assert (saved.folder / name).read_bytes() == (written / name).read_bytes(), name
    mine, theirs = (json.loads((folder / "run.json").read_text()) for folder in (saved.folder, written))
    changing = {"written": 0, "seconds": 0, "peak_memory_mib": 0}
    assert mine | changing == theirs | changing


def test_arrays_give_what_files_give(pair, written, tmp_path):
    images = [
        ArrayImage(image_HWC, crs="EPSG:32615", transform=PLACE, name=name)
        for image_HWC, name in ((pair.before_HWC, "before"), (pair.after_HWC, "after"))
    ]
    with detect_in_memory(*images, detector=detector(), config=TILES, progress=QUIET) as result:
        np.testing.assert_array_equal(result.change, read(written / "change.tif"))
        saved = result.save(tmp_path / "out")
    assert (saved.folder / "score.tif").read_bytes() == (written / "score.tif").read_bytes()
    assert json.loads((saved.folder / "run.json").read_text())["inputs"]["before"]["files"] == []


def test_plain_arrays_have_no_crs_and_their_mask_counts(pair):
    valid_HW = np.ones((150, 230), bool)
    valid_HW[:, 200:] = False
    before = ArrayImage(pair.before_HWC, name="before")
    after = ArrayImage(pair.after_HWC, valid_HW=valid_HW, name="after")
    with detect_in_memory(before, after, detector=detector(), config=TILES, progress=QUIET) as result:
        assert result.objects.crs is None and result.summary.changed_m2 is None and "area_px" in result.objects
        assert (result.change[:, 200:] == 255).all() and np.isnan(result.score[:, 200:]).all()
        assert (result.change[:, 30:200] != 255).all()


def test_a_notebook_shows_three_images_and_the_numbers(pair):
    with detect_in_memory(pair.before, pair.after, detector=detector(), config=TILES, progress=QUIET) as result:
        page = result._repr_html_()
        assert page.count('src="data:image/') == 3 and result.summary.format_line() in page
        assert repr(result) == f"DetectionResult(150 x 230 px: {result.summary.format_line()})"


def test_save_refuses_a_folder_with_other_files(pair, tmp_path):
    (tmp_path / "thesis.docx").write_text("years")
    with detect_in_memory(pair.before, pair.after, detector=detector(), config=TILES, progress=QUIET) as result:
        with pytest.raises(OutputError, match=r"thesis\.docx"):
            result.save(tmp_path)
        result.save(tmp_path, overwrite=True)
    assert (tmp_path / "thesis.docx").read_text() == "years" and (tmp_path / "change.tif").is_file()


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((9, 9), np.uint8), "three or more bands"),
        (np.zeros((9, 9, 2), np.uint8), "three or more bands"),
        (np.zeros((9, 9, 3), bool), "type bool"),
    ],
)
def test_an_array_that_is_no_image_is_refused(image, words):
    with pytest.raises(ConfigError, match=words):
        ArrayImage(image)


def test_a_crs_needs_a_transform():
    with pytest.raises(ConfigError, match="CRS but no transform"):
        ArrayImage(np.zeros((9, 9, 3), np.uint8), crs="EPSG:32615")
    assert ArrayImage(np.zeros((9, 9, 3), np.uint8), crs="EPSG:32615", transform=Affine.identity()).nodata is None


def test_an_array_that_does_not_fit_is_called_by_its_name(pair: Pair) -> None:
    smaller = ArrayImage(pair.after_HWC[:, :100], name="after")
    with pytest.raises(InputError, match=r"^after: The image has 100 x 150 px, but before\.tif has 230 x 150 px"):
        with detect_in_memory(ArrayImage(pair.before_HWC, name="before"), smaller, detector=detector(), config=TILES):
            pass
