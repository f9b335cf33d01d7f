"""Folders of images with names and entries that people and programs leave there: read, or refused in a sentence."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.robustness.runner import run_case
from tests.robustness.targets import build_scene

import semicdvl as cd
from semicdvl.data.images.reading import read_rgb

NAMES = (
    "a b.png", "-o.png", "--help.png", ".hidden.png", "a\nb.png", "a\tb.png", "\x1b[31mred.png", "é.png", "e\u0301.png",
    "\u202egnp.png", "a" * 200 + ".png", "*.png", "[1].png", "a;b.png", "$(id).png", "'.png", '".png', "a\\b.png",
    "%s.png", "..png", "con.png", "1.PNG", "x.png.png", "a,b.png", "a:b.png", "#.png", "~.png",
)  # fmt: skip


def copy_as(scene: Path, name: str) -> None:
    """Add a pair of this name to the small data set."""
    for date in ("A", "B"):
        shutil.copy(scene / "small_png" / date / "one.png", scene / "small_png" / date / name)


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Put something else in the place of an image."""

    def change(scene: Path) -> None:
        path = scene / "small_png" / "B" / "one.png"
        path.unlink()
        make(path)

    return change


def bind_socket(path: Path) -> None:
    earlier = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(earlier)


def add_bytes_name(scene: Path) -> None:
    for date in (b"A", b"B"):
        folder = os.fsencode(scene / "small_png") + b"/" + date
        shutil.copy(folder + b"/one.png", folder + b"/\xff\xfe.png")


ENTRIES: dict[str, Callable[[Path], object]] = {
    "a pipe": replace_by(os.mkfifo),
    "a socket": replace_by(bind_socket),
    "a folder": replace_by(Path.mkdir),
    "a circle": replace_by(lambda path: path.symlink_to(path.name)),
    "a device": replace_by(lambda path: path.symlink_to("/dev/zero")),
    "nothing": replace_by(lambda path: path.symlink_to("nowhere")),
    "empty": replace_by(Path.touch),
    "a folder in a circle": lambda scene: (scene / "small_png" / "A" / "loop").symlink_to(".."),
    "a name that is no text": add_bytes_name,
    "a file as a date": lambda scene: (shutil.rmtree(scene / "small_png" / "B"), (scene / "small_png" / "B").touch()),
    "a pipe as a list": lambda scene: os.mkfifo(scene / "small_png" / "train.txt"),
    "a folder as a list": lambda scene: (scene / "small_png" / "train.txt").mkdir(),
    "a label of another size": lambda scene: (
        (scene / "small_png" / "label").mkdir(),
        shutil.copy(scene / "mask.png", scene / "small_png" / "label" / "one.png"),
    ),
    "a label that is a pipe": lambda scene: (
        (scene / "small_png" / "label").mkdir(),
        os.mkfifo(scene / "small_png" / "label" / "one.png"),
    ),
    "one of one name in two formats": lambda scene: shutil.copy(
        scene / "small_jpg" / "A" / "one.jpg", scene / "small_png" / "A" / "one.jpg"
    ),
}
CASES = {repr(name): lambda scene, name=name: copy_as(scene, name) for name in NAMES} | ENTRIES
FAKE = "--vlm semicdvl.vlms.models.fake:build_fake --find building --background grass --device cpu"
PSEUDO = f"pseudo small_png -o out {FAKE}"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    whole = build_scene(tmp_path_factory.mktemp("sound") / "scene")
    return whole


def read_all(scene: Path) -> None:
    for pair in cd.load_dataset(scene / "small_png").pairs:
        for path in (pair.before, pair.after):
            read_rgb(path)


@pytest.mark.parametrize("case", CASES)
def test_a_folder_of_images_is_read_or_refused(case: str, sound: Path, tmp_path: Path) -> None:
    scene = tmp_path / "scene"
    scene.mkdir()
    for name in ("small_png", "small_jpg"):
        shutil.copytree(sound / name, scene / name)
    shutil.copy(sound / "mask.png", scene / "mask.png")
    CASES[case](scene)
    labelled = case.startswith("a label")  # labels are compared with after the store is complete, which is kept
    for act in (read_all,) if labelled else (read_all, PSEUDO):
        outcome = run_case(scene, act)
        assert not outcome.is_fault, outcome
        if case in map(repr, NAMES):
            assert outcome.state == "accepted" or "name" in outcome.text, outcome
