"""A table of pairs: read and checked before work begins, worked on pair by pair, gone on with."""

import csv
import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from tests.support.command import command
from tests.support.synthetic_rasters import at, city, png, tif

from semicdvl.detection.batch.pairs_table import BatchPair, PairsTable, read_pairs
from semicdvl.detection.batch.run import detect_batch
from semicdvl.detection.config import DetectionConfig
from semicdvl.errors import InputError, MissingExtraError, OutputError
from semicdvl.types import IGNORE, ChangeMap, Detector

QUIET = Console(quiet=True)
SETTINGS = DetectionConfig(tile_px=64, overlap_px=16)
TILES = 2 * 4
"""Of an image of 70 x 130 px."""
FAKE = ["--vlm", "fake", "--find", "building", "--background", "grass"]


@dataclass
class Difference(Detector):
    """Looks at single pixels; stops, or makes a mistake of its own, where it is told to."""

    asked: list = field(default_factory=list)
    stop_at: int = -1
    mistake: bool = False
    name: str = "difference"
    map_count: int = 1

    @property
    def identity(self):
        return self.name

    def predict_scores(self, t1_HWC, t2_HWC, *, gsd_m=None):
        if len(self.asked) == self.stop_at:
            raise KeyboardInterrupt
        if self.mistake and t1_HWC[0, 0, 0] == 7:
            raise ZeroDivisionError("seven")
        self.asked.append(1)
        return np.abs(t1_HWC.astype(np.float32) - t2_HWC).max(axis=2)[None] / 255

    def decide(self, strips):
        for strip in strips:
            score_HW = np.where(strip.valid_HW, strip.scores_PHW[0], np.nan).astype(np.float32)
            yield ChangeMap(np.where(strip.valid_HW, score_HW > 0.5, IGNORE).astype(np.uint8), score_HW)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three pairs of 70 x 130 px, two of them plain, in A/ and B/; a square appears in each."""
    for name, seed in (("one", 1), ("two", 2), ("three", 3)):
        before_CHW = np.full((3, 70, 130), 40 * seed, np.uint8)
        after_CHW = before_CHW.copy()
        after_CHW[:, 20 : 20 + 10 * seed, 50:80] = 250
        for date, image_CHW in (("A", before_CHW), ("B", after_CHW)):
            (tmp_path / date).mkdir(exist_ok=True)
            if name == "three":
                tif(tmp_path / date / "three.tif", image_CHW, at(366_000, 4_104_000))
            else:
                png(tmp_path / date / f"{name}.png", image_CHW)
    return tmp_path


def table(folder: Path, *rows: tuple[str, ...], columns: str = "before,after,name", name: str = "pairs.csv") -> Path:
    path = folder / name
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows([columns.split(","), *rows])
    return path


def three(folder: Path) -> Path:
    files = ("one.png", "two.png", "three.tif")
    return table(folder, *((f"A/{file}", f"B/{file}") for file in files), columns="before,after")


def objects_of(root: Path) -> dict[str, int]:
    return {one["name"]: one["objects"] for one in json.loads((root / "pairs.json").read_text())["pairs"]}


# ------------------------------------------------------------------------------------------------ the table
def test_a_date_of_many_tiles_is_read(images):
    names = [f"A/tile_{at:03d}.png" for at in range(60)]
    for name in names:
        shutil.copy(images / "A" / "one.png", images / name)
    pair = read_pairs(table(images, (",".join(names), "B/one.png"), columns="before,after")).pairs[0]
    assert pair.before.split(",") == [str(images / name) for name in names]


def test_paths_are_meant_from_the_table_and_names_are_made_from_the_files(images, monkeypatch):
    monkeypatch.chdir("/")
    (images / "tiles-v1.2").mkdir()
    shutil.copy(images / "A" / "three.tif", images / "tiles-v1.2")
    path = table(
        images,
        ("A/one.png", "B/one.png", ""),
        ("A/one.png", str(images / "B" / "two.png"), ""),
        ("tiles-v1.2", "A/three.tif,B/three.tif", ""),
        ("https://a.b/dir/c.tif?key=1", "/vsizip/t.zip/c.tif", "far away"),
        ("A/*.tif", "B/three.tif", "Straße"),
    )
    read = read_pairs(path)
    here = str(images)
    assert read.pairs == (
        BatchPair("one", f"{here}/A/one.png", f"{here}/B/one.png"),
        BatchPair("one-two", f"{here}/A/one.png", f"{here}/B/two.png"),
        BatchPair("tiles-v1.2-three", f"{here}/tiles-v1.2", f"{here}/A/three.tif,{here}/B/three.tif"),
        BatchPair("far away", "https://a.b/dir/c.tif?key=1", "/vsizip/t.zip/c.tif"),
        BatchPair("Straße", f"{here}/A/*.tif", f"{here}/B/three.tif"),
    )
    assert read.notes == ()


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_any_usual_csv_is_read(images, delimiter):
    lines = [["name", "before", "date", "after"], [], ["x", "A/one.png", "2020", "B/one.png"]]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    (images / "t.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    read = read_pairs(images / "t.csv")
    assert [pair.name for pair in read.pairs] == ["x"] and read.pairs[0].after.endswith("B/one.png")
    assert read.notes == ("t.csv: the columns date are ignored",)


def test_parquet_is_read_with_and_without_geometry(images, monkeypatch):
    gpd, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    pytest.importorskip("pyarrow", reason="semicdvl[parquet] is not installed")
    columns = {"before": ["A/one.png", "A/two.png"], "after": ["B/one.png", "B/two.png"], "name": ["x", None]}
    places = gpd.GeoDataFrame(columns, geometry=[shapely.Point(0, 0)] * 2, crs="EPSG:4326")
    places.to_parquet(images / "pairs.parquet")
    read = read_pairs(images / "pairs.parquet")
    assert [pair.name for pair in read.pairs] == ["x", "two"] and "geometry" in read.notes[0]
    (images / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"bad\.parquet: cannot be read as parquet"):
        read_pairs(images / "bad.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"semicdvl\[parquet\]"):
        read_pairs(images / "pairs.parquet")


ONE = ("A/one.png", "B/one.png")
BAD = {
    "no line": ([], "before,after,name", "holds no pair"),
    "no column": ([(*ONE, "x")], "before,later,name", "has no column 'after'"),
    "a misspelt column": ([(*ONE, "x")], "befor,after,name", "has no column 'before'.*Is it 'befor'"),
    "a misspelt name": ([(*ONE, "x")], "before,after,nmae", "column 'nmae', which is not known.*Rename it to name"),
    "a column twice": ([(*ONE, "x")], "before,after,after", "'after' twice"),
    "a million columns": ([ONE], "before,after," + "," * 1_000_000, "has 1,000,003 columns, and up to 1,000 are read"),
    "too many cells": ([("A/one.png", "B/one.png", "x", "y")], "before,after,name", "line 2 has 4 cells"),
    "an empty cell": ([("A/one.png", "", "x")], "before,after,name", "line 2: after is empty"),
    "a missing file": ([(*ONE, "x"), ("A/no.png", "B/one.png", "y")], "before,after,name", "line 3: before .*A/no.png"),
    "an empty folder": ([("A/one.png", "empty", "x")], "before,after,name", "line 2: after .*The folder contains no"),
    "a pattern that fits nothing": ([("A/one.png", "B/*.jp2", "x")], "before,after,name", "No file matches"),
    "a name twice": ([(*ONE, "x"), (*ONE, "y"), (*ONE, "X")], "before,after,name", "line 4: .*'X' is also"),
    "files of one name": ([ONE, ONE], "before,after", "'one' is also that of line 2 .made from the file names"),
    "a name that climbs": ([(*ONE, "../x")], "before,after,name", "leads out of the output folder"),
    "an absolute name": ([(*ONE, "/tmp/x")], "before,after,name", "leads out of the output folder"),
    "a name of a folder in it": ([(*ONE, "a/b")], "before,after,name", "leads out of the output folder"),
    "two dots": ([(*ONE, "..")], "before,after,name", "leads out of the output folder"),
    "a hidden name": ([(*ONE, ".x")], "before,after,name", "would be hidden"),
    "a name that is no text": ([(*ONE, "a\x07b")], "before,after,name", "cannot name a folder"),
    "a long name": ([(*ONE, "x" * 201)], "before,after,name", "cannot name a folder"),
    "the index": ([(*ONE, "Index.html")], "before,after,name", "is that of a file of the index"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_cannot_be_worked_on_is_one_error(images, case):
    rows, columns, words = BAD[case]
    (images / "empty").mkdir()
    with pytest.raises(InputError, match=words) as refused:
        read_pairs(table(images, *rows, columns=columns))
    assert str(refused.value).startswith(f"{images / 'pairs.csv'}: ") and "\n" not in str(refused.value)


def test_many_faults_are_told_at_once_and_not_without_end(images):
    rows = [("A/no.png", "B/one.png", f"n{at}") for at in range(9)]
    with pytest.raises(InputError, match=r"line 2: .*line 6: .*; and 4 more\. Nothing was started"):
        read_pairs(table(images, *rows))


def test_no_table_is_refused(images):
    for name, words in (("pairs.xlsx", "is not a table of pairs"), ("none.csv", "does not exist")):
        with pytest.raises(InputError, match=words):
            read_pairs(images / name)
    (images / "latin.csv").write_bytes("before,after\nä".encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_pairs(images / "latin.csv")


@given(st.text(max_size=30))
@settings(max_examples=200, deadline=None)
def test_no_name_leads_out_of_the_folder(tmp_path_factory, name):
    """Whatever stands in the table, a result lies in the folder of results, or nothing is begun."""
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    for file in ("a.png", "b.png"):
        (folder / file).touch()
    try:
        read = read_pairs(table(folder, ("a.png", "b.png", name)))
    except InputError:
        return
    (pair,) = read.pairs
    out = folder / "root" / pair.name
    assert out.parent == folder / "root" and out.resolve().parent == (folder / "root").resolve()
    assert pair.name == (name.strip() or "a-b")


# ------------------------------------------------------------------------------------------------ the work
def test_every_pair_becomes_a_result_and_a_line_of_the_index(images):
    detector = Difference()
    found = detect_batch(read_pairs(three(images)), images / "out", detector=detector, config=SETTINGS, progress=QUIET)
    assert [one.state for one in found.outcomes] == ["done"] * 3 and not found.failed
    assert objects_of(images / "out") == {"one": 1, "two": 1, "three": 1}
    record = json.loads((images / "out" / "pairs.json").read_text())
    area = [(one["changed_px"], one["changed_m2"]) for one in record["pairs"]]
    assert area == [(300, None), (600, None), (900, 225.0)]
    page = (images / "out" / "index.html").read_text()
    for name in ("one", "two", "three"):
        assert (images / "out" / name / "report.html").is_file() and f'href="{name}/report.html"' in page
    assert "3 of 3" in page and "225 m²" in page and "600 px" in page


def test_what_is_done_is_not_done_again_unless_something_is_new(images):
    path, root = three(images), images / "out"

    def run(**more) -> tuple[list[str], int]:
        detector = more.pop("detector", None) or Difference()
        found = detect_batch(
            read_pairs(path), root, detector=detector, config=replace(SETTINGS, **more), progress=QUIET
        )
        return [one.state for one in found.outcomes], len(detector.asked)

    assert run() == (["done"] * 3, 3 * TILES)
    stamps = {name: (root / name / "run.json").stat().st_mtime_ns for name in ("one", "two", "three")}
    assert run() == (["kept"] * 3, 0) and objects_of(root) == {"one": 1, "two": 1, "three": 1}
    assert {name: (root / name / "run.json").stat().st_mtime_ns for name in stamps} == stamps
    assert run(overwrite=True) == (["kept"] * 3, 0)
    png(images / "B" / "two.png", city(70, 130))
    assert run() == (["kept", "done", "kept"], TILES)
    (root / "three" / "score.tif").unlink()
    assert run() == (["kept", "kept", "done"], TILES)
    assert run(min_area_m2=400.0)[0] == ["done"] * 3 and objects_of(root)["one"] == 0
    assert run(min_area_m2=400.0, detector=Difference(name="another"))[0] == ["done"] * 3
    assert run(min_area_m2=400.0, polygons=("geojson",), detector=Difference(name="another"))[0] == ["done"] * 3


def test_a_pair_that_fails_does_not_stop_the_others(images, capsys):
    path = three(images)
    broken = images / "B" / "two.png"
    broken.write_bytes(broken.read_bytes()[:60])
    png(images / "A" / "one.png", np.full((3, 70, 130), 7, np.uint8))
    shown = Console(width=300, force_terminal=False, stderr=True)
    detector = Difference(mistake=True)
    found = detect_batch(read_pairs(path), images / "out", detector=detector, config=SETTINGS, progress=shown)
    assert [one.state for one in found.outcomes] == ["failed", "failed", "done"]
    told = capsys.readouterr().err
    assert "ZeroDivisionError: seven" in told and "Traceback" in told, "a mistake of ours is shown whole"
    assert "two.png" in (found.outcomes[1].error or "") and "two.png" in told
    assert {path.name for path in (images / "out").iterdir()} == {"three", "pairs.json", "index.html"}
    page = (images / "out" / "index.html").read_text()
    assert "Failed" in page and "two.png" in page and "1 of 3" in page
    png(broken, city(70, 130))
    again = detect_batch(read_pairs(path), images / "out", detector=Difference(), config=SETTINGS, progress=QUIET)
    assert [one.state for one in again.outcomes] == ["done", "done", "kept"]


def test_an_interrupted_run_goes_on_inside_its_pair(images):
    path, root = three(images), images / "out"
    stop_at = TILES + TILES - 1  # in the second row of tiles of the second pair, the first being written
    with pytest.raises(KeyboardInterrupt):
        detect_batch(read_pairs(path), root, detector=Difference(stop_at=stop_at), config=SETTINGS, progress=QUIET)
    assert objects_of(root) == {"one": 1} and (root / ".two.partial").is_dir()
    detector = Difference()
    found = detect_batch(read_pairs(path), root, detector=detector, config=SETTINGS, progress=QUIET)
    assert [one.state for one in found.outcomes] == ["kept", "done", "done"]
    assert len(detector.asked) == TILES // 2 + TILES, "a row of tiles of the second pair was there"
    tiles = json.loads((root / "two" / "run.json").read_text())["tiles"]
    assert tiles == {"all": TILES, "from_an_interrupted_run": TILES // 2} and not (root / ".two.partial").exists()


def test_what_is_foreign_is_refused_before_work_begins(images):
    read, root, detector = read_pairs(three(images)), images / "out", Difference()

    def run(**more) -> None:
        detect_batch(read, root, detector=detector, config=replace(SETTINGS, **more), progress=QUIET)

    (root / "three").mkdir(parents=True)
    (root / "three" / "letters.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"three: holds files that no earlier .detect. wrote"):
        run()
    (root / "index.html").write_text("my page")
    with pytest.raises(OutputError, match=r"index\.html: no earlier .detect --pairs. wrote it"):
        run()
    assert detector.asked == [] and (root / "index.html").read_text() == "my page"
    run(overwrite=True)
    assert (root / "three" / "letters.txt").read_text() == "mine" and objects_of(root)["three"] == 1
    shutil.rmtree(root)
    root.write_text("a file")
    with pytest.raises(OutputError, match="is a file, but a folder is needed"):
        run()


def test_names_with_signs_are_linked_and_shown_as_they_are(images):
    pairs = (BatchPair("a <b> & 100 %[red]", str(images / "A" / "one.png"), str(images / "B" / "one.png")),)
    detect_batch(PairsTable(images / "t.csv", pairs), images / "out", detector=Difference(), progress=QUIET)
    page = (images / "out" / "index.html").read_text()
    assert 'href="a%20%3Cb%3E%20%26%20100%20%25%5Bred%5D/report.html">a &lt;b&gt; &amp; 100 %[red]</a>' in page


# ------------------------------------------------------------------------------------------------ the command
def test_command(images, capsys):
    broken = images / "B" / "two.png"
    sound = broken.read_bytes()
    broken.write_bytes(sound[:60])
    path, out = three(images), images / "out"
    code, text, told = command(capsys, "detect", "--pairs", path, "-o", out, *FAKE)
    assert code == 2 and "3 pairs: 2 done, 1 failed" in text and "two.png" in text and "[2/3] two" in told
    assert "Traceback" not in told
    broken.write_bytes(sound)
    code, text, _ = command(capsys, "detect", "--pairs", path, "-o", out, *FAKE)
    assert code == 0 and "3 pairs: 1 done, 2 done before" in text and str(out / "index.html") in text


FORMS = {
    "nothing": (["-o", "{out}"], "No image was given"),
    "one image": (["A/one.png", "-o", "{out}"], "Only A/one.png was given"),
    "both": (["A/one.png", "B/one.png", "--pairs", "pairs.csv", "-o", "{out}"], "Leave out A/one.png B/one.png"),
    "a missing table": (["--pairs", "none.csv", "-o", "{out}"], "none.csv: does not exist"),
    "workers of nobody": (["A/one.png", "B/one.png", "-o", "{out}", "--workers", "2"], "are of --engine ray"),
}


@pytest.mark.parametrize("case", FORMS)
def test_command_refuses(images, capsys, monkeypatch, case):
    monkeypatch.chdir(images)
    arguments, words = FORMS[case]
    code, _, told = command(capsys, "detect", *(one.format(out="out") for one in arguments), *FAKE)
    assert code == 2 and words in told and "Traceback" not in told and not (images / "out").exists()
