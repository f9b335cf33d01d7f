"""The output folder: earlier results are replaced, other files are kept or refused, nothing is left half-written."""

import json
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from tests.support.brightness_detector import QUIET, TILES, Brighter, read

from semicdvl.detection import pipeline
from semicdvl.detection.output_folder import OUTPUT_FILES, carry_over_other_files, check_output_folder
from semicdvl.detection.pipeline import write_detection
from semicdvl.errors import InputError, OutputError


def test_an_earlier_result_is_replaced_with_what_a_gis_left_beside_it(pngs, tmp_path):
    out = tmp_path / "out"
    write_detection(*pngs, out, detector=Brighter(), config=TILES, progress=QUIET)
    (out / "change.tif.aux.xml").write_text("statistics")
    (out / "changes.gpkg-wal").write_text("")
    (out / "evaluation.json").write_text("{}")  # of the earlier map
    write_detection(*pngs, out, detector=Brighter(name="second"), config=TILES, progress=QUIET)
    assert sorted(path.name for path in out.iterdir()) == sorted(OUTPUT_FILES)
    assert json.loads((out / "run.json").read_text())["detector"]["name"] == "second"


@pytest.mark.parametrize("foreign", ["thesis.docx", "run.json", "change.tif"])
def test_a_folder_with_other_things_is_refused(pngs, tmp_path, foreign):
    out = tmp_path / "out"
    out.mkdir()
    (out / foreign).write_text("{}")
    with pytest.raises(OutputError, match=foreign):
        write_detection(*pngs, out, detector=Brighter(), config=TILES, progress=QUIET)
    assert [path.name for path in out.iterdir()] == [foreign] and (out / foreign).read_text() == "{}"


def test_overwrite_keeps_what_is_not_ours(pngs, tmp_path):
    out = tmp_path / "out"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "a.txt").write_text("mine")
    (out / "thesis.docx").write_text("years")
    (out / "change.tif").write_text("old")
    write_detection(*pngs, out, detector=Brighter(), config=replace(TILES, overwrite=True), progress=QUIET)
    assert (out / "thesis.docx").read_text() == "years" and (out / "deep" / "a.txt").read_text() == "mine"
    assert read(out / "change.tif").shape == (150, 230)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A.png", "B.png", "out"]


def test_a_file_in_place_of_the_folder_is_refused(pngs, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        write_detection(*pngs, tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("stage", ["detect", "write"])
def test_whatever_happens_nothing_is_half_written(pngs, tmp_path, monkeypatch, error, stage):
    out = tmp_path / "out"
    write_detection(*pngs, out, detector=Brighter(), config=TILES, progress=QUIET)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    detector = Brighter(error=error if stage == "detect" else None)
    if stage == "write":
        monkeypatch.setattr(pipeline, "write_detection_report", lambda *_, **__: (_ for _ in ()).throw(error))
    wanted = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(wanted):
        write_detection(*pngs, out, detector=detector, config=TILES, progress=QUIET)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    kept = [".out.partial"] if stage == "write" and not isinstance(error, OSError) else []
    assert sorted(path.name for path in tmp_path.iterdir()) == [*kept, "A.png", "B.png", "out"]
    assert not (tmp_path / ".out.partial" / "result").exists(), "only tiles are kept for the next run"


def test_bad_input_leaves_no_folder(pngs, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_detection(
            pngs[0], tmp_path / "nowhere.png", tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET
        )
    assert not (tmp_path / "out").exists()


def test_nothing_but_no_data_is_an_error(tifs, tmp_path):
    with rasterio.open(tifs[1], "r+") as target:
        target.write(np.zeros((3, 150, 230), np.uint8))
    with pytest.raises(InputError, match=r"after\.tif: The image has no data"):
        write_detection(*tifs, tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.tif", "before.tif"]


def test_a_review_is_no_obstacle_and_stays(tmp_path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    for folder in (out, work, out / "labels", out / "reviewed-patches"):
        folder.mkdir()
    (out / "run.json").write_text('{"format": "semicdvl-detect"}')
    names = ("review.sqlite", "review.sqlite-wal", "reviewed.gpkg", "reviewed.gpkg-journal", "review.json")
    for name in names:
        (out / name).write_text(name)
    for folder in ("labels", "reviewed-patches"):
        (out / folder / "train.toml").write_text(folder)
    check_output_folder(out, overwrite=False)
    carry_over_other_files(out, work)
    assert [(work / name).read_text() for name in names] == list(names)
    assert [(work / name / "train.toml").read_text() for name in ("labels", "reviewed-patches")] == [
        "labels", "reviewed-patches",
    ]  # fmt: skip


def test_a_link_to_a_folder_stays_and_the_results_lie_where_it_leads(pngs, tmp_path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "out"
    link.symlink_to(tmp_path / "disk" / "results", target_is_directory=True)
    for _ in range(2):  # the folder does not exist yet, and then holds an earlier result
        write_detection(*pngs, link, detector=Brighter(), config=TILES, progress=QUIET)
        assert link.is_symlink() and (tmp_path / "disk" / "results" / "change.tif").is_file()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_link_in_the_place_of_the_work_folder_is_not_emptied(pngs, tmp_path):
    for name in ("tiles", "result"):
        (tmp_path / "elsewhere" / name).mkdir(parents=True)
        (tmp_path / "elsewhere" / name / "mine.txt").write_text("years")
    (tmp_path / ".out.partial").symlink_to("elsewhere")
    with pytest.raises(OutputError, match=r"\.out\.partial: is a link, and what it leads to"):
        write_detection(*pngs, tmp_path / "out", detector=Brighter(), config=TILES, progress=QUIET)
    assert all((tmp_path / "elsewhere" / name / "mine.txt").read_text() == "years" for name in ("tiles", "result"))
