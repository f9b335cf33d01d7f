"""Whatever call a writer is killed in, the older or the newer output is whole, at the latest after the next start."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from semicdvl.atomic_files import write_atomically, write_folder_atomically, write_json
from semicdvl.errors import OutputError
from semicdvl.outputs import exchange
from semicdvl.outputs.exchange import exchange_paths, require_own_folder, sweep_unfinished_files, write_file_set
from semicdvl.outputs.locks import lock_output

CALLS = ("rename", "replace", "unlink", "rmdir", "mkdir", "fsync")
"""Functions of `os` that change what a folder shows."""


class Killed(BaseException):
    """Stands for the end of the process: nothing after it happens, not even a `finally`."""


@contextmanager
def killed_at(number: int, patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Let all calls of `CALLS` from the given one on do nothing: what a killed process would leave on the disk."""
    seen: list[str] = []

    def stop(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            seen.append(name)
            if len(seen) >= number:
                raise Killed(name)
            return real(*arguments, **options)

        return call

    def exchange_or_stop(first: Path, second: Path) -> bool:
        seen.append("exchange")
        if len(seen) >= number:
            raise Killed("exchange")
        return real_exchange(first, second)

    real_exchange = exchange.exchange_paths
    with patch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, stop(name, getattr(os, name)))
        patched.setattr(exchange, "exchange_paths", exchange_or_stop)
        yield seen


def write_result(out: Path, version: str) -> None:
    with write_folder_atomically(out) as work:
        (work / "map").write_text(version)
        (work / "record").write_text(version)


def read_result(out: Path) -> set[str]:
    return {(out / name).read_text() for name in ("map", "record")}


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_is_the_older_or_the_newer_one_whenever_its_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(exchange, "exchange_paths", lambda first, second: False)
    number, missing = 0, 0
    while True:
        number += 1
        home = tmp_path / str(number)
        out = home / "out"
        write_result(out, "older")
        try:
            with killed_at(number, monkeypatch):
                write_result(out, "newer")
            break
        except Killed:
            pass
        missing += not out.exists()
        with lock_output(out):
            assert read_result(out) in ({"older"}, {"newer"})
        assert [path.name for path in home.iterdir()] == ["out"], "what was left is swept"
    assert number > 6
    assert missing == (0 if can_exchange else 1), "only without an exchange there is a moment without the folder"


def test_files_that_belong_together_move_together_whenever_their_writer_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = 0
    while True:
        number += 1
        out = tmp_path / str(number)
        out.mkdir()
        for name in ("scores", "places"):
            (out / name).write_text("older")
        try:
            with killed_at(number, monkeypatch), lock_output(out), write_file_set(out) as work:
                for name in ("scores", "places"):
                    (work / name).write_text("newer")
            break
        except Killed:
            pass
        with lock_output(out):
            found = {(out / name).read_text() for name in ("scores", "places")}
        assert found in ({"older"}, {"newer"}), number
        sweep_unfinished_files(out)
        assert sorted(path.name for path in out.iterdir()) == ["places", "scores"]
    assert {path.read_text() for path in out.iterdir()} == {"newer"} and number > 6


def test_an_older_result_that_a_kill_left_aside_comes_back(tmp_path: Path) -> None:
    """What the first version left: OUT is gone, and the earlier result lies in a hidden folder."""
    write_result(tmp_path / "out", "older")
    (tmp_path / ".old-out-ab12cd34").mkdir()
    shutil.move(tmp_path / "out", tmp_path / ".old-out-ab12cd34" / "out")
    (tmp_path / ".old-out-b-ab12cd34").mkdir()
    with lock_output(tmp_path / "out"):
        assert read_result(tmp_path / "out") == {"older"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".old-out-b-ab12cd34", "out"], "that is out-b's"


def test_names_change_places_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange_paths(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange names")
    assert (tmp_path / "a" / "b").exists() and (tmp_path / "b" / "a").exists()
    with pytest.raises(FileNotFoundError):
        exchange_paths(tmp_path / "a", tmp_path / "none")


def test_a_folder_behind_a_link_stays_behind_it(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    write_result(tmp_path / "disk" / "out", "older")
    write_result(tmp_path / "out", "newer")
    assert (tmp_path / "out").is_symlink() and read_result(tmp_path / "disk" / "out") == {"newer"}


def test_unfinished_files_are_swept_down_to_a_depth(tmp_path: Path) -> None:
    for name in (".part-a", "x/.part-b", "x/y/.part-c", "x/kept"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sweep_unfinished_files(tmp_path, depth=2)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["x/kept", "x/y/.part-c"]


def test_unfinished_files_behind_a_link_are_of_others(tmp_path: Path) -> None:
    for name in ("disk/.part-a/tile", "disk/sub/.part-b"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "data").symlink_to(tmp_path / "disk")
    sweep_unfinished_files(tmp_path / "out", depth=3)
    assert (tmp_path / "disk/.part-a/tile").exists() and (tmp_path / "disk/sub/.part-b").exists()
    sweep_unfinished_files(tmp_path / "out" / "data", depth=3)  # which is meant
    assert not (tmp_path / "disk/.part-a").exists() and not (tmp_path / "disk/sub/.part-b").exists()


def test_records_are_on_the_disk_before_they_get_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with killed_at(1000, monkeypatch) as seen:
        write_json(tmp_path / "run.json", {})
    assert seen == ["fsync", "replace"] or seen == ["fsync", "rename"]


@pytest.mark.parametrize("name", ["open", "mkdir"])
def test_a_signal_as_soon_as_the_unfinished_output_is_there_leaves_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes while the system makes the file: its name must be known by then."""
    real = getattr(os, name)

    def interrupt(*arguments: object, **options: object) -> None:
        handle = real(*arguments, **options)
        if handle is not None:
            os.close(handle)
        raise KeyboardInterrupt

    write = {"open": lambda: write_atomically(tmp_path / "a.bin"), "mkdir": lambda: write_file_set(tmp_path)}[name]
    with monkeypatch.context() as patch:
        patch.setattr(os, name, interrupt)
        with pytest.raises(KeyboardInterrupt), write():
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_link_named_like_a_folder_that_was_moved_aside_gives_nothing_back(tmp_path: Path) -> None:
    write_result(tmp_path / "elsewhere" / "out", "mine")
    (tmp_path / f"{exchange.REPLACED_PREFIX}out-abcdefgh").symlink_to("elsewhere")
    with lock_output(tmp_path / "out"):
        assert not (tmp_path / "out").exists()
    assert read_result(tmp_path / "elsewhere" / "out") == {"mine"}


@pytest.mark.parametrize("what", ["link", "broken link", "file"])
def test_what_stands_in_the_place_of_a_folder_for_unfinished_work_is_refused(what: str, tmp_path: Path) -> None:
    place = tmp_path / "state"
    if what == "file":
        place.write_text("")
    else:
        place.symlink_to("." if what == "link" else "nowhere")
    with pytest.raises(OutputError, match=r"state: cannot be written \(It is a .*\)\. Delete"):
        require_own_folder(place)
    require_own_folder(tmp_path / "none")
    require_own_folder(tmp_path)


def test_a_folder_in_the_place_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json" / "inner").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"a\.json: cannot be written \(Is a directory\)\. Delete the folder"):
        write_json(tmp_path / "a.json", {})


def test_a_file_of_a_set_that_finds_no_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.json" / "inner").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"b\.json: cannot be written"), write_file_set(tmp_path) as work:
        (work / "a.json").write_text("{}")
        (work / "b.json").write_text("{}")
