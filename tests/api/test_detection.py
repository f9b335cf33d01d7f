"""`detect` in memory: every way to name a detector and an image gives the same map, and nothing is written."""

from functools import partial
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from rasterio.vrt import WarpedVRT
from tests.api.conftest import BUILDING, CRS, TRANSFORM, ExampleData

import semicdvl as cd

CVA = cd.create_detector("cva", threshold="otsu")
PROMPTS = cd.Prompts(find=("building",), background=("grass",))


def _truth() -> np.ndarray:
    truth_HW = np.zeros((64, 96), np.uint8)
    truth_HW[BUILDING] = 1
    return truth_HW


def test_arrays_give_the_map_and_write_nothing(
    example_data: ExampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cd.detect(example_data.before, example_data.after, vlm="fake", prompts=PROMPTS)
    np.testing.assert_array_equal(result.change, _truth())
    assert result.score.dtype == np.float32 and result.score[30, 40] > result.score[5, 5]
    assert isinstance(result.objects, gpd.GeoDataFrame) and list(result.objects["kind"]) == ["appeared"]
    assert result.t1 is not None and result.t2 is not None
    assert result.classes[result.t1[30, 40]] == "grass" and result.classes[result.t2[30, 40]] == "building"
    assert any("areas are in pixels" in warning for warning in result.warnings)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray 0.19 with affine 3
def test_every_form_of_an_image_gives_the_same_map(example_data: ExampleData) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    with rasterio.open(example_data.before_tif) as first, rasterio.open(example_data.after_tif) as second:
        opened = cd.detect(first, second, detector=CVA)
    arrays = [rioxarray.open_rasterio(path) for path in (example_data.before_tif, example_data.after_tif)]
    images = [cd.ArrayImage(image, crs=CRS, transform=TRANSFORM) for image in (example_data.before, example_data.after)]
    paths = cd.detect(example_data.before_tif, str(example_data.after_tif), detector=CVA)
    for other in (opened, cd.detect(*arrays, detector=CVA), cd.detect(*images, detector=CVA)):
        np.testing.assert_array_equal(other.change, paths.change)
        np.testing.assert_array_equal(other.score, paths.score)
        assert other.grid == paths.grid
    assert paths.gsd_m == 0.5 and paths.grid.crs == rasterio.crs.CRS.from_string(CRS)
    assert float(paths.objects["area_m2"].max()) == pytest.approx(1200 * 0.25)


@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")  # rioxarray 0.19 with affine 3
def test_names_of_bands_are_followed_in_every_form(example_data: ExampleData, tmp_path: Path) -> None:
    """Files of the order blue, green, red give the map of red, green, blue, from paths, views and DataArrays alike."""
    rioxarray = pytest.importorskip("rioxarray")
    names = ("Blue", "Green", "Red")
    paths = []
    for path in (example_data.before_tif, example_data.after_tif):
        paths.append(tmp_path / path.name)
        with rasterio.open(path) as source, rasterio.open(paths[-1], "w", **source.profile) as target:
            target.write(source.read()[::-1])
            target.descriptions = names
    expected = cd.detect(example_data.before_tif, example_data.after_tif, vlm="fake", prompts=PROMPTS)
    arrays = [rioxarray.open_rasterio(path) for path in paths]
    labelled = [
        array.assign_coords(band=["B02", "B03", "B04"]).assign_attrs(long_name="reflectance") for array in arrays
    ]
    with rasterio.open(paths[0]) as first, rasterio.open(paths[1]) as second:
        views = [WarpedVRT(dataset, crs=CRS) for dataset in (first, second)]
        for images in (paths, arrays, labelled, views):
            found = cd.detect(*images, vlm="fake", prompts=PROMPTS)
            np.testing.assert_array_equal(found.change, expected.change)
            np.testing.assert_array_equal(found.score, expected.score)


def test_a_missing_file_is_refused_before_anything_is_loaded(example_data: ExampleData, tmp_path: Path) -> None:
    def build() -> cd.Detector:
        raise AssertionError("the detector was built")

    for missing in (tmp_path / "nowhere.tif", [example_data.after_tif, tmp_path / "nowhere.tif"]):
        with pytest.raises(cd.InputError, match=r"nowhere\.tif: The file does not exist"):
            cd.detect(example_data.before_tif, missing, detector=build)
        with pytest.raises(cd.InputError, match=r"nowhere\.tif: The file does not exist"):
            cd.detect_to_folder(example_data.before_tif, missing, tmp_path / "out", detector=build)


def test_what_is_saved_is_what_the_command_writes(example_data: ExampleData, tmp_path: Path) -> None:
    saved = cd.detect(example_data.before_tif, example_data.after_tif, detector=CVA).save(tmp_path / "memory")
    written = cd.detect_to_folder(
        example_data.before_tif, example_data.after_tif, tmp_path / "disk", detector=CVA, progress=False
    )
    assert {path.name for path in saved.folder.iterdir()} == {path.name for path in written.folder.iterdir()}
    for name in ("change.tif", "score.tif"):
        with rasterio.open(saved.folder / name) as one, rasterio.open(written.folder / name) as other:
            np.testing.assert_array_equal(one.read(), other.read())
            assert one.crs == other.crs and one.transform == other.transform
    assert saved.summary == written.summary


def test_a_result_shows_itself_in_a_notebook(example_data: ExampleData) -> None:
    page = cd.detect(example_data.before, example_data.after, vlm="fake", prompts=PROMPTS)._repr_html_()
    assert page.count("<img") == 3
    for words in ("before", "after", "change", "1 changed object"):
        assert words in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_a_detector_is_named_once(example_data: ExampleData) -> None:
    with pytest.raises(cd.ConfigError, match=r"model and method each name a detector\. Give one of them"):
        cd.detect(example_data.before, example_data.after, model="runs/x", method="cva")


def test_a_trained_run_is_named_by_its_folder(example_data: ExampleData) -> None:
    by_name = cd.detect(example_data.before, example_data.after, model=example_data.run)
    by_detector = cd.detect(
        example_data.before, example_data.after, detector=partial(cd.load_detector, example_data.run, device="cpu")
    )
    np.testing.assert_array_equal(by_name.score, by_detector.score)


def test_arrays_of_two_shapes_are_refused(example_data: ExampleData) -> None:
    with pytest.raises(cd.InputError, match=r"after.*60.*96"):
        cd.detect(example_data.before, example_data.after[:60], detector=CVA)


def test_settings_reach_the_detection(example_data: ExampleData) -> None:
    config = cd.DetectionConfig(gsd_m=0.5, min_area_m2=301)
    result = cd.detect(example_data.before, example_data.after, detector=CVA, config=config)
    assert result.summary.objects == 0 and not (result.change == 1).any()
    assert "No change was" in " ".join(result.warnings)


def test_an_executor_needs_a_detector_that_it_can_build(example_data: ExampleData, tmp_path: Path) -> None:
    with pytest.raises(cd.ConfigError, match=r"executor 'ray': each worker builds its own detector.*partial"):
        cd.detect_to_folder(
            example_data.before_tif,
            example_data.after_tif,
            tmp_path / "out",
            detector=CVA,
            executor="ray",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_check_without_a_folder_writes_nothing(
    example_data: ExampleData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checked = cd.check_pair(example_data.before_tif, example_data.after_tif)
    assert (checked.height_px, checked.width_px, checked.overlap_m2) == (64, 96, 64 * 96 * 0.25)
    assert list(tmp_path.iterdir()) == []
    cd.check_pair(example_data.before_tif, example_data.after_tif, out=tmp_path / "check")
    assert sorted(path.name for path in (tmp_path / "check").iterdir()) == ["check.html", "check.json"]
