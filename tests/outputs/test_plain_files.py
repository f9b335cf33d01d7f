"""Nothing is written through a link, or into a pipe, that lies where a file of ours is expected."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from semicdvl.data.prepare.patch_cutter import open_journal
from semicdvl.errors import OutputError
from semicdvl.outputs.exchange import open_plain_file
from semicdvl.outputs.locks import lock_output
from semicdvl.pseudo_labels.locks import lock_for_writing


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "victim").write_text("mine")
    return tmp_path / "victim"


@pytest.mark.parametrize("mode", ["a", "w", "r+"])
def test_a_link_is_not_written_through(mode: str, victim: Path) -> None:
    link = victim.with_name("link")
    for target in ("victim", "nothing"):
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        with pytest.raises(OSError, match="It is a symbolic link"):
            open(link, mode, opener=open_plain_file)
    assert victim.read_text() == "mine" and not victim.with_name("nothing").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="It is no regular file"):
        open(tmp_path / "pipe", "a", opener=open_plain_file)
    with pytest.raises(OSError, match="It is no regular file"):
        open_plain_file("/dev/null", os.O_RDWR)


def test_a_plain_file_is_opened(tmp_path: Path) -> None:
    for text in ("a", "b"):
        with open(tmp_path / "new", "a", opener=open_plain_file) as handle:
            handle.write(text)
    assert (tmp_path / "new").read_text() == "ab"


def test_a_lock_that_is_a_link_empties_no_file(victim: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.lock").symlink_to("victim")
    with pytest.raises(OutputError, match=r"\.out\.lock: cannot be written \(It is a symbolic link.*Delete it"):
        with lock_output(tmp_path / "out"):
            pytest.fail("the lock was taken")
    (tmp_path / ".locks").mkdir()
    (tmp_path / ".locks" / "writing").symlink_to("../victim")
    with pytest.raises(OutputError, match="It is a symbolic link"):
        with lock_for_writing(tmp_path):
            pytest.fail("the lock was taken")
    assert victim.read_text() == "mine"


def test_a_journal_that_is_no_file_is_refused(victim: Path, tmp_path: Path) -> None:
    (tmp_path / "patches.jsonl").symlink_to("nothing")
    with pytest.raises(OutputError, match="It is a symbolic link"):
        open_journal(tmp_path)
    (tmp_path / "patches.jsonl").unlink()
    os.mkfifo(tmp_path / "patches.jsonl")
    with pytest.raises(OutputError, match="It is no regular file"):
        open_journal(tmp_path)
    assert not (tmp_path / "nothing").exists()
