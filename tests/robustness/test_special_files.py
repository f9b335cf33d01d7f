"""Named pipes, devices, sockets and impossible names are refused at once, by every path option of every command."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from tests.robustness.runner import run_case
from tests.robustness.targets import OLD

import semicdvl as cd
from semicdvl.cli import app
from semicdvl.config import load_recipe
from semicdvl.data.images.reading import read_rgb
from semicdvl.data.labels.files import read_mask
from semicdvl.data.name_lists import read_name_list
from semicdvl.data.prepare.polygon_layer import read_polygons
from semicdvl.detection.batch.pairs_table import read_pairs
from semicdvl.errors import SemicdvlError
from semicdvl.evaluation.map_vs_truth import read_detected_map, read_truth
from semicdvl.official import read_tensors_safely
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.reading.array_files import read_npy, read_npz
from semicdvl.reading.json_files import read_json
from semicdvl.reading.tensor_files import read_tensors

OUTPUTS = ("output", "out")
"""Options that name what is written."""


def list_path_options() -> Iterator[tuple[str, str, str]]:
    """Yield command, name and option string of every parameter of a path; images are texts and count, too."""
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        for parameter in command.params:
            images = parameter.name in ("before", "after", "data")
            if images or "Path" in str(parameter.type_descriptor.annotation):
                word = "" if parameter.param_type_name == "argument" else max(parameter.opts, key=len)
                yield name, parameter.name, word


PATH_OPTIONS = list(list_path_options())
REQUIRED = {
    "detect": "-o out",
    "pseudo": "-o out",
    "adapt": "-o out",
    "import-official": "-o out",
    "export": "-o out.onnx",
}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "scene"
    folder.mkdir()
    for name in ("before.tif", "after.tif"):
        (folder / name).write_bytes((OLD / name).read_bytes())
    os.mkfifo(folder / "pipe")
    (folder / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        earlier = Path.cwd()
        os.chdir(folder)
        server.bind("sock")
        os.chdir(earlier)
        yield folder


def write_line(command: str, option: str, given: str) -> str:
    """Return a command line in which one path is strange and the others are sound."""
    words = [command]
    group: Any = typer.main.get_command(app)
    for parameter in group.commands[command].params:
        if parameter.param_type_name == "argument" and (parameter.required or parameter.name in ("before", "after")):
            default = {"before": "before.tif", "after": "after.tif"}.get(parameter.name, "before.tif")
            words.append(f"'{given}'" if parameter.name == option else default)
    _, _, word = next(one for one in PATH_OPTIONS if one[:2] == (command, option))
    if word:
        words.append(f"{word} '{given}'")
    elif option not in words and f"'{given}'" not in words:
        words.append(f"'{given}'")
    if command in REQUIRED and word not in ("--output",):
        words.append(REQUIRED[command])
    return " ".join(words)


@pytest.mark.parametrize("given", ["pipe", "/dev/zero", "loop"])
@pytest.mark.parametrize(("command", "option", "word"), PATH_OPTIONS, ids=lambda value: str(value))
def test_no_command_reads_what_is_no_file(command: str, option: str, word: str, given: str, scene: Path) -> None:
    outcome = run_case(scene, write_line(command, option, given))
    assert outcome.state == "refused", outcome


def test_all_commands_are_walked() -> None:
    group: Any = typer.main.get_command(app)
    without = {"list", "demo"}
    assert {command for command, _, _ in PATH_OPTIONS} >= set(group.commands) - without
    assert len(PATH_OPTIONS) > 35


def _read_grid() -> Any:
    return read_detected_map(OLD / "detected").grid


READERS: dict[str, Callable[[Path], Any]] = {
    "model": cd.load_model,
    "detector": lambda path: cd.load_detector(path, device="cpu"),
    "recipe": load_recipe,
    "suite": cd.load_suite,
    "raster": lambda path: open_pair(path, OLD / "after.tif"),
    "polygons": lambda path: read_polygons(path, grid=_read_grid()),
    "truth": lambda path: read_truth(path, grid=_read_grid()),
    "list": read_name_list,
    "table": read_pairs,
    "JSON": lambda path: read_json(path, remedy="Give another"),
    "array": lambda path: read_npy(path, remedy="Give another"),
    "archive": lambda path: read_npz(path, remedy="Give another"),
    "tensors": lambda path: read_tensors(path, remedy="Give another"),
    "checkpoint": read_tensors_safely,
    "weights": lambda path: cd.create_model("siam_light", backbone="resnet18", pretrained=str(path)),
    "VLM": lambda path: cd.create_vlm("aerial", weights=path),
}


@pytest.mark.parametrize("given", ["pipe", "/dev/zero", "sock", "loop", "a" * 300, "a\0b"])
@pytest.mark.parametrize("reader", READERS)
def test_no_reader_opens_what_is_no_file(reader: str, given: str, scene: Path) -> None:
    with pytest.raises(SemicdvlError):
        READERS[reader](Path(given) if given.startswith("/") else scene / given)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("read", [read_rgb, read_mask])
def test_a_pipe_named_like_an_image_is_refused(suffix: str, read: Callable[[Path], Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"a{suffix}")
    with pytest.raises(SemicdvlError, match="is a named pipe"):
        read(tmp_path / f"a{suffix}")


def test_a_new_line_in_the_output_is_refused(scene: Path) -> None:
    outcome = run_case(scene, "detect before.tif after.tif --method cva -o 'a\nb'")
    assert outcome.state == "refused"
    assert not (scene / "a\nb").exists()
