"""Records edited by hand, paths that leave their folder, inputs that change, and images that say what cannot be."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tests.robustness.hostile_images import DOUBLE, LONG, PIXEL_SCALE, WIDTH, TiffFile, build_vrt
from tests.robustness.targets import OLD
from tests.support.command import command

import semicdvl as cd
from semicdvl.atomic_files import hash_values
from semicdvl.data.images.reading import read_rgb
from semicdvl.data.split_file import SPLIT_FORMAT, read_split, write_split
from semicdvl.detection import pipeline
from semicdvl.detection.detectors.unsupervised import build_unsupervised_detector
from semicdvl.errors import DataError, InputError, OutputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.raster.vector.reading import read_layer
from semicdvl.types import PairFiles, Split

QUIET = Console(quiet=True)


# ------------------------------------------------------------------------------------------------ records
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"key": 7}, "key: Input should be a valid string"),
        ({"key": None}, "key: "),
        ({"format": "x"}, "format: Input should be 'semicdvl-prepare-1'"),
        ({"status": []}, "status: "),
    ],
)
def test_a_damaged_record_of_a_preparation_is_named(
    change: Any, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(OLD / "prepared", tmp_path / "prepared")
    record = tmp_path / "prepared" / "prepare.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    images = ("--before", OLD / "before.tif", "--after", OLD / "after.tif", "--labels", OLD / "truth.geojson")
    options = ("-o", tmp_path / "prepared", "--size-px", 32, "--block-m", 16, "--buffer-px", 0)
    code, _, complaint = command(capsys, "prepare", *images, *options)
    assert code == 2 and f"prepare.json: {why}" in " ".join(complaint.split()), complaint


@pytest.mark.parametrize(("key", "why"), [(7, "key: Input should be a valid string"), ("0" * 64, "other images")])
def test_a_damaged_record_of_an_adaptation_is_named(
    key: Any, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run" / "adapt").mkdir(parents=True)
    record = tmp_path / "run" / "adapt" / "adapt.json"
    record.write_text(json.dumps({"format": "semicdvl-adapt", "key": key}))
    words = ("--vlm", "semicdvl.vlms.models.fake:build_fake", "--find", "building", "--background", "grass")
    options = ("-o", tmp_path / "run", "--patch-px", 64, "--backbone", "test_resnet", "--pretrained", "none")
    code, _, complaint = command(capsys, "adapt", OLD / "before.tif", OLD / "after.tif", *words, *options)
    assert code == 2 and why in " ".join(complaint.split()), complaint


# ------------------------------------------------------------------------------------------------ paths
def write_pair(folder: Path, name: str) -> PairFiles:
    folder.mkdir(parents=True, exist_ok=True)
    for date in ("before", "after"):
        Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / f"{name}-{date}.png")
    return PairFiles(name, folder / f"{name}-before.png", folder / f"{name}-after.png", folder / f"{name}-before.png")


@pytest.mark.parametrize("part", ["labelled", "val", "test"])
def test_a_split_does_not_lead_out_of_the_folder_of_the_data(part: str, tmp_path: Path) -> None:
    data, outside = tmp_path / "data", write_pair(tmp_path / "elsewhere", "b")
    inside = write_pair(data, "a")
    write_split(tmp_path / "split.json", Split((inside,), (outside,), (), ()), root=data)
    assert read_split(tmp_path / "split.json").unlabelled[0].name == "b", "unlabelled pairs may be of another data set"
    write_split(tmp_path / "split.json", Split(**{"unlabelled": (), **dict.fromkeys(("labelled", "val", "test"), ()), part: (outside,)}), root=data)  # fmt: skip  # noqa: E501
    with pytest.raises(DataError, match="lies outside of the folder of the data"):
        read_split(tmp_path / "split.json")
    (data / "link").symlink_to(tmp_path / "elsewhere")
    assert getattr(read_split(tmp_path / "split.json"), part)[0].name == "b", "a link in the folder leads there"


def test_an_absolute_path_in_a_split_is_refused(tmp_path: Path) -> None:
    write_split(
        tmp_path / "split.json", Split((write_pair(tmp_path / "data", "a"),), (), (), ()), root=tmp_path / "data"
    )
    content = json.loads((tmp_path / "split.json").read_text())
    content["labelled"][0]["before"] = str(write_pair(tmp_path / "elsewhere", "b").before)
    content["sha256"] = hash_values(SPLIT_FORMAT, {key: content[key] for key in content if key not in ("format", "sha256", "root")})  # fmt: skip  # noqa: E501
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="lies outside of the folder of the data"):
        read_split(tmp_path / "split.json")


@pytest.mark.parametrize("images", ["/", "../..", "../../elsewhere"])
def test_answers_name_images_near_them(images: str, tmp_path: Path) -> None:
    answers = tmp_path / "here" / "answers"
    answers.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (answers / "answers.json").write_text(json.dumps({"prompts": ["house"], "images": images}))
    with pytest.raises(InputError, match="names images outside of the folder above it"):
        cd.create_vlm("precomputed", weights=answers)
    assert cd.create_vlm("precomputed", weights=answers, images=tmp_path / "elsewhere"), "the user names them"
    (tmp_path / "here" / "seen").symlink_to(tmp_path / "elsewhere")
    (answers / "answers.json").write_text(json.dumps({"prompts": ["house"], "images": "../seen"}))
    assert cd.create_vlm("precomputed", weights=answers)


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for read in (cd.load_model, cd.load_recipe, cd.load_suite, cd.load_dataset, lambda at: open_pair(at, at)):
        with pytest.raises(cd.SemicdvlError):
            read(tmp_path / "loop")


# ------------------------------------------------------------------------------------------------ inputs that change
def test_an_image_that_is_written_to_meanwhile_gives_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("before.tif", "after.tif"):
        shutil.copy(OLD / name, tmp_path / name)
    score_tiles = pipeline._DetectionRun.score_tiles

    def write_meanwhile(self: Any, store: Any) -> None:
        score_tiles(self, store)
        os.utime(tmp_path / "after.tif")

    detector, images = build_unsupervised_detector("cva"), (tmp_path / "before.tif", tmp_path / "after.tif")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline._DetectionRun, "score_tiles", write_meanwhile)
        with pytest.raises(InputError, match=r"after\.tif: was changed while it was read"):
            pipeline.write_detection(*images, tmp_path / "out", detector=detector, progress=QUIET)
        with pytest.raises(InputError, match="was changed"):
            pipeline.detect_in_memory(*images, detector=detector, progress=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.tif", "before.tif"]
    pipeline.write_detection(*images, tmp_path / "out", detector=detector, progress=QUIET)


def test_prepare_takes_a_vrt_of_files_elsewhere_when_it_may(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vrt").mkdir()
    shutil.copy(OLD / "after.tif", tmp_path / "after.tif")
    with open_pair(OLD / "before.tif", OLD / "after.tif") as pair:
        height, width = pair.shape_hw
        numbers = ", ".join(map(str, pair.grid.transform.to_gdal()))
        place = f"<SRS>{pair.grid.crs.to_string()}</SRS><GeoTransform>{numbers}</GeoTransform>"
    vrt = tmp_path / "vrt" / "after.vrt"
    vrt.write_text(build_vrt("../after.tif", width=str(width), height=str(height), more=place))
    images = ("--before", OLD / "before.tif", "--after", vrt, "--labels", OLD / "truth.geojson")
    options = ("--size-px", 32, "--block-m", 16, "--buffer-px", 0)
    code, _, complaint = command(capsys, "prepare", *images, "-o", tmp_path / "data", *options)
    assert code == 2 and "outside of its folder" in " ".join(complaint.split())
    code, _, complaint = command(capsys, "prepare", *images, "-o", tmp_path / "data", *options, "--allow-outside")
    assert code == 0, complaint
    code, _, complaint = command(capsys, "prepare", *images, "-o", tmp_path / "data", *options, "--allow-outside")
    assert code == 0, "the permission is no part of what is made"


# ------------------------------------------------------------------------------------------------ what cannot be
@pytest.mark.parametrize("scale", [[1e-300, 1e-300, 0.0], [1e300, 1e300, 0.0], [float("nan")] * 3])
def test_pixels_without_a_size_are_refused(scale: list[float], tmp_path: Path) -> None:
    content = TiffFile((OLD / "before.tif").read_bytes()).build({PIXEL_SCALE: (DOUBLE, scale)})
    (tmp_path / "before.tif").write_bytes(content)
    with pytest.raises(InputError, match="places the pixels nowhere"):
        open_pair(tmp_path / "before.tif", OLD / "after.tif")


def test_a_directory_beyond_the_end_is_refused(tmp_path: Path) -> None:
    content = TiffFile((OLD / "before.tif").read_bytes()).build({}, following=2**32 - 1)
    (tmp_path / "before.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"before\.tif.*(damaged|cannot be opened)"):
        open_pair(tmp_path / "before.tif", OLD / "after.tif")


def test_a_patch_of_gigabytes_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(tmp_path / "a.tif")
    content = TiffFile((tmp_path / "a.tif").read_bytes()).build({WIDTH: (LONG, [2**31 - 1])})
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"2,147,483,647 pixels in 3 bands, too much to be decoded at once"):
        read_rgb(tmp_path / "a.tif")


def test_postscript_is_not_handed_to_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 48 40\nshowpage\n")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("os.system", lambda *_: pytest.fail("a program was started"))
    with pytest.raises(InputError, match="is not an image that can be read"):
        read_rgb(tmp_path / "a.png")


@pytest.mark.parametrize("source", ["a" * 300, "a/" * 3_000, "loop"])
def test_a_source_that_cannot_exist_is_refused(source: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a.vrt").write_text(build_vrt(source))
    with pytest.raises(InputError, match="Its source"):
        open_pair(OLD / "before.tif", tmp_path / "a.vrt")


def test_a_view_that_never_ends_is_refused(tmp_path: Path) -> None:
    shutil.copy(OLD / "detected" / "changes.gpkg", tmp_path / "a.gpkg")
    assert len(read_layer(tmp_path / "a.gpkg", layer="changes")) > 0
    with sqlite3.connect(tmp_path / "a.gpkg") as database:
        database.execute(
            "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
        )
    database.close()
    with pytest.raises(InputError, match="holds the view 'endless' of more than 5,000,000 rows"):
        read_layer(tmp_path / "a.gpkg", layer="changes")


# ------------------------------------------------------------------------------------------------ what kills leave
def test_a_batch_that_was_killed_after_a_result_took_its_place_is_swept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pairs.csv").write_text(f"before,after,name\n{OLD / 'before.tif'},{OLD / 'after.tif'},one\n")
    words = ("detect", "--pairs", tmp_path / "pairs.csv", "-o", tmp_path / "out", "--method", "cva")
    assert command(capsys, *words)[0] == 0
    (tmp_path / "out" / ".one.partial" / "tiles").mkdir(parents=True)
    (tmp_path / "out" / ".one.partial" / "tiles" / "00000.json").write_text("{}")
    (tmp_path / "out" / ".one.lock").write_text('{"pid": 1073741824, "host": "elsewhere", "since": "then"}')
    assert command(capsys, *words)[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["index.html", "one", "pairs.json"]


def test_an_adaptation_that_could_not_write_its_record_can_be_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from semicdvl.training.self_training import run as adaptation

    def fail(path: Path, _: Any) -> None:
        path.parent.mkdir(parents=True)
        raise OutputError(f"{path}: cannot be written (No space left on device).")

    monkeypatch.setattr(adaptation, "write_json", fail)
    with pytest.raises(OutputError, match="No space left"):
        adaptation._claim_folder(tmp_path / "run", {"inputs": 1}, asked={})
    assert not (tmp_path / "run").exists()
