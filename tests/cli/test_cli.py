"""The command line as a user meets it: help that teaches, one clear error, exit code 2, nothing half-written."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from semicdvl import __version__
from semicdvl.__main__ import main
from semicdvl.data.readers.folder import read_folder

FAKE = ["--vlm", "fake", "--find", "building", "--background", "grass"]


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Run the program in this process; return its exit code, what it printed and what it complained."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "argv", ["semicdvl", *map(str, arguments)])
        patch.setenv("COLUMNS", "200")
        main()
    code = stop.value.code
    printed = capsys.readouterr()
    return code if isinstance(code, int) else 0, printed.out, printed.err


def test_waiting_threads_do_not_spin_unless_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, expected in (("ACTIVE", "ACTIVE"), (None, "PASSIVE")):
        monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
        if given is None:
            monkeypatch.delenv("OMP_WAIT_POLICY")
        assert _run(capsys, "--version")[0] == 0
        assert os.environ["OMP_WAIT_POLICY"] == expected


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Green ground of 80 x 96 px, on which a red square appears."""
    before = np.zeros((80, 96, 3), np.uint8)
    before[:] = (110, 170, 80)
    after = before.copy()
    after[20:50, 30:70] = (190, 80, 60)
    paths = tmp_path / "A" / "one.png", tmp_path / "B" / "one.png"
    for path, image in zip(paths, (before, after), strict=True):
        path.parent.mkdir()
        cv2.imwrite(str(path), image[..., ::-1])
    return paths


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = _run(capsys, "--help")
    assert code == 0
    for command in ("demo", "detect", "pseudo", "train", "evaluate", "list"):
        assert command in text
    assert __version__ in _run(capsys, "--version")[1]
    assert "house" in _run(capsys, "detect", "--help")[1]


HEAVY = "torch timm numpy pydantic rasterio scipy cv2 skimage pandas geopandas matplotlib PIL multiprocessing".split()
"""Modules that take a tenth of a second or more to import, and what stands for more of the kind."""


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (["--help"], set()),
        (["--version"], set()),
        (["detect", "--help"], {"pydantic"}),  # typer converts values with it
        (["list", "methods"], {"pydantic"}),
        (["list", "models"], {"pydantic"}),
        (["list", "classic"], {"pydantic"}),
        (["list", "vlms"], {"pydantic", "numpy"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_lists_load_no_heavy_modules(arguments: list[str], loaded: set[str]) -> None:
    code = (
        f"import sys; sys.argv = ['semicdvl', *{arguments}]\n"
        "from semicdvl.__main__ import main\n"
        f"try: main()\nfinally: print('loaded:', *(name for name in {HEAVY} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.rpartition("loaded:")[2].split()) <= loaded


def test_square_brackets_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out [draft]"
    code, text, complaint = _run(capsys, "detect", *pair, "-o", out, *FAKE)
    assert code == 0, complaint
    assert f"results: {out}" in text
    assert "semicdvl[onnx]" in _run(capsys, "export", "--help")[1]


def test_lists_name_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert "semicd_vl" in _run(capsys, "list", "methods")[1]
    assert "aerial" in _run(capsys, "list", "vlms")[1]
    assert "whu_cd" in _run(capsys, "list", "datasets")[1]
    assert "house, building | road" in _run(capsys, "list", "prompts")[1]
    text = _run(capsys, "list", "models", "--params")[1]
    assert "26,128,838" in text and "24,880,066" in text


def test_detect_without_labels_writes_the_whole_result(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, text, complaint = _run(capsys, "detect", *pair, "-o", out, *FAKE)
    assert code == 0, complaint
    assert "1 changed object" in text
    assert {"change.tif", "score.tif", "t1.tif", "t2.tif", "changes.gpkg", "report.html", "run.json"} <= {
        path.name for path in out.iterdir()
    }


def test_pseudo_fills_a_store_and_tells_its_quality(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    label = np.zeros((80, 96), np.uint8)
    label[20:50, 30:70] = 255
    (tmp_path / "label").mkdir()
    cv2.imwrite(str(tmp_path / "label" / "one.png"), label)
    code, text, complaint = _run(capsys, "pseudo", tmp_path, "-o", tmp_path / "store", *FAKE, "--gamma", 0.5)
    assert code == 0, complaint
    assert "1 pair in" in text and "1.000" in text
    assert "intact, 1 label." in _run(capsys, "pseudo", tmp_path, "-o", tmp_path / "store", "--verify")[1]


def test_a_threshold_that_the_level_does_not_use_is_refused(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for level, option, remedy in (
        ("instance", "--gamma", "--level mixed or pixel"),
        ("residual", "--gamma", "--level mixed or pixel"),
        ("pixel", "--instance-score", "--level instance or mixed"),
    ):
        code, _, complaint = _run(capsys, "detect", *pair, "-o", out, *FAKE, "--level", level, option, 0.5)
        text = " ".join(complaint.split())
        assert code == 2 and f"{option} 0.5 changes nothing at the level {level}" in text and remedy in text
        assert not out.exists()
    assert _run(capsys, "detect", *pair, "-o", out, *FAKE, "--level", "pixel", "--gamma", 0.5)[0] == 0


def test_the_score_of_instances_and_the_residual_level_can_be_chosen(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    almost_red = cv2.imread(str(pair[1]))
    almost_red[20:50, 30:70, 2] -= 5
    cv2.imwrite(str(pair[1]), almost_red)
    for number, (options, expected) in enumerate(
        (
            (("--instance-score", 0.5), "1 changed object"),
            (("--instance-score", 1.0), "0 changed objects"),
            (("--level", "residual"), "1 changed object"),
        )
    ):
        code, text, complaint = _run(capsys, "detect", *pair, "-o", tmp_path / str(number), *FAKE, *options)
        assert code == 0 and expected in text, complaint


BAD = {
    "a missing file": (["detect", "none.tif", "{pair[1]}", "-o", "{out}", *FAKE], "none.tif"),
    "no image": (["detect", "{text}", "{pair[1]}", "-o", "{out}", *FAKE], "text.png"),
    "another size": (["detect", "{small}", "{pair[1]}", "-o", "{out}", *FAKE], "small.png"),
    "an unknown VLM": (["detect", "{pair[0]}", "{pair[1]}", "-o", "{out}", "--vlm", "arial"], "Did you mean 'aerial'"),
    "an unknown prompt set": (
        ["detect", "{pair[0]}", "{pair[1]}", "-o", "{out}", "--prompts", "bildings"],
        "Did you mean 'buildings'",
    ),
    "a run that is none": (
        ["detect", "{pair[0]}", "{pair[1]}", "-o", "{out}", "--model", "{root}"],
        "not a trained run",
    ),
    "no recipe": (["train", "none.toml"], "none.toml"),
    "an unknown option": (["detect", "{pair[0]}", "{pair[1]}", "-o", "{out}", "--fnd", "house"], "--find"),
    "an unknown data set": (["pseudo", "{root}", "-o", "{out}", "--dataset", "levir"], "Did you mean 'levir_cd'"),
    "a folder without pairs": (["pseudo", "{empty}", "-o", "{out}"], "empty"),
    "another thing in OUT": (["detect", "{pair[0]}", "{pair[1]}", "-o", "{root}", *FAKE], "A"),
}


@pytest.mark.parametrize(("arguments", "words"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_one_clear_error(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path, arguments: list[str], words: str
) -> None:
    names = {"pair": pair, "out": tmp_path / "out", "root": tmp_path, "text": tmp_path / "text.png"}
    names |= {"small": tmp_path / "small.png", "empty": tmp_path / "empty"}
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    cv2.imwrite(str(tmp_path / "small.png"), np.full((40, 96, 3), 90, np.uint8))
    before = sorted(tmp_path.rglob("*"))
    code, text, complaint = _run(capsys, *(argument.format(**names) for argument in arguments))
    assert code == 2, text + complaint
    assert words in complaint
    assert "Traceback" not in complaint
    assert sorted(tmp_path.rglob("*")) == before


def test_odd_label_values_are_named(
    capsys: pytest.CaptureFixture[str], pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "label").mkdir()
    cv2.imwrite(str(tmp_path / "label" / "one.png"), np.full((80, 96), 7, np.uint8))
    code, _, complaint = _run(capsys, "pseudo", tmp_path, "-o", tmp_path / "store", *FAKE)
    assert code == 2
    assert "one.png" in complaint and "7" in complaint
    assert read_folder(tmp_path).pairs[0].label is not None


@pytest.mark.parametrize("reason", ["disk", "ctrl-c"])
def test_a_full_disk_and_ctrl_c_leave_the_earlier_result(
    capsys: pytest.CaptureFixture[str],
    pair: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reason: str,
) -> None:
    out = tmp_path / "out"
    assert _run(capsys, "detect", *pair, "-o", out, *FAKE)[0] == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def broken(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device") if reason == "disk" else KeyboardInterrupt

    monkeypatch.setattr("semicdvl.reports.html.write_page", broken)
    code, _, complaint = _run(capsys, "detect", *pair, "-o", out, *FAKE)
    assert code == (2 if reason == "disk" else 130)
    assert ("No space left" if reason == "disk" else "Interrupted") in complaint
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert json.loads(before["run.json"])
    kept = {".out.partial"} if reason == "ctrl-c" else set()  # finished tiles, for the same command again
    assert {path.name for path in tmp_path.iterdir()} == {"A", "B", "out"} | kept


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["--method", "cva", "--find", "house"],
            "--find is for detection with a vision-language model, which --method cva",
        ),
        (["--method", "cva", "--level", "instance"], "--level is for"),  # given, if only with its default
        (["--method", "cva", "--device", "cpu"], "--method-set device="),
        (["--model", "runs/x", "--vlm-from", "weights"], "--weights / --vlm-from is for"),
        (["--model", "runs/x", "--replaced-class"], "--replaced-class is for"),
        (["--model", "runs/x", "--delta", "0.0", "--shift-px", "2"], "--delta is for"),
        (["--precision", "fp32"], "--precision is for trained networks. Give --model"),
        (["--method", "cva", "--compile"], "--compile is for trained networks"),
        (["--combine", "both"], "--combine is for trained networks. Give --model"),
        (["--model", "runs/x", "--combine", "network", "--find", "house"], "--find is for"),
        ([*FAKE, "--min-cosine", "0.5"], "--features efficientnet_lite0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_would_do_nothing_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], named: str
) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.full((64, 64, 3), 90, np.uint8))
    out = tmp_path / "out"
    code, _, said = _run(capsys, "detect", tmp_path / "a.png", tmp_path / "b.png", "-o", out, *options)
    assert code == 2 and named in " ".join(said.split()) and "Traceback" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def _fill_processor() -> None:
    import torch

    torch.empty(2**55)


def _fill_numpy() -> None:
    np.empty(2**55)


def _fill_gpu() -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.25 GiB.\nGPU 0 has 139 GiB.")


@pytest.mark.parametrize(
    ("work", "where", "reason"),
    [
        (_fill_processor, "this machine", "DefaultCPUAllocator: can't allocate memory"),
        (_fill_numpy, "this machine", "Unable to allocate 256. PiB for an array"),
        (_fill_gpu, "the GPU", "CUDA out of memory. Tried to allocate 2.25 GiB.)"),
    ],
)
def test_too_little_memory_has_a_remedy(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, work, where: str, reason: str
) -> None:
    monkeypatch.setattr("semicdvl.cli.app", lambda standalone_mode: work())
    code, _, said = _run(capsys, "detect")
    assert code == 2 and said.count("\n") == 1
    assert said.startswith(f"error: {where} has not enough free memory (") and reason in said
    assert "a smaller --tile" in said and ("--device cpu" in said) == (where == "the GPU")


def test_other_errors_keep_their_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(standalone_mode: bool) -> None:
        raise RuntimeError("a mistake of this program")

    monkeypatch.setattr("semicdvl.cli.app", fail)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(RuntimeError, match="a mistake of this program"):
        patch.setattr(sys, "argv", ["semicdvl", "detect"])
        main()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("arguments", [["list", "methods"], ["--version"]])
def test_output_that_takes_no_more_text_has_a_remedy(arguments: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "semicdvl", *arguments]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert ended.stderr.startswith(
        "error: standard output cannot be written (No space left on device). Free some space"
    )
