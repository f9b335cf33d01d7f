"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from semicdvl import atomic_files
from semicdvl.errors import InputError, OutputError
from semicdvl.reading.json_files import read_json


def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.json"
    atomic_files.write_json(path, {"old": 1})
    with pytest.raises(KeyboardInterrupt), atomic_files.write_atomically(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert read_json(path, remedy="") == {"old": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_bytes_are_written_at_once_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sub" / "a.png"
    atomic_files.write_bytes_atomically(path, b"old")
    atomic_files.write_bytes_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    for error, wanted in (
        (OSError(28, "No space left on device"), OutputError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ):

        def fails(*_: object, error: BaseException = error) -> None:
            raise error

        with monkeypatch.context() as patched, pytest.raises(wanted):
            patched.setattr(Path, "replace", fails)
            atomic_files.write_bytes_atomically(path, b"half")
    assert path.read_bytes() == b"new" and [p.name for p in path.parent.iterdir()] == ["a.png"]
    with pytest.raises(OutputError, match="cannot be written"):
        atomic_files.write_bytes_atomically(path / "below" / "b.png", b"")


def test_a_folder_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with atomic_files.write_folder_atomically(out) as folder:
        (folder / "first").write_text("1")
    with pytest.raises(ValueError, match="no"), atomic_files.write_folder_atomically(out) as folder:
        (folder / "second").write_text("2")
        raise ValueError("no")
    assert [p.name for p in out.iterdir()] == ["first"]
    with atomic_files.write_folder_atomically(out) as folder:
        (folder / "third").write_text("3")
    assert [p.name for p in out.iterdir()] == ["third"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_full_disk_is_an_output_error(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"No space left.*Free some space"),
        atomic_files.write_atomically(tmp_path / "a.bin"),
    ):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(OutputError, match=r"cannot be written.*Delete the file or the broken link that stands in"),
        atomic_files.write_atomically(tmp_path / "file" / "a.json"),
    ):
        pass
    (tmp_path / "link").symlink_to("nowhere")
    with (
        pytest.raises(OutputError, match="Delete the file or the broken link that stands in"),
        atomic_files.write_atomically(tmp_path / "link" / "a.json"),
    ):
        pass


def test_invalid_json_names_the_file_and_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json.*not valid JSON.*Mend it"):
        read_json(tmp_path / "a.json", remedy="Mend it")
    with pytest.raises(InputError, match=r"none\.json"):
        read_json(tmp_path / "none.json", remedy="Mend it")


def test_hashes_follow_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = atomic_files.hash_file(path)
    path.write_bytes(b"three")
    assert atomic_files.hash_file(path) != first
    assert atomic_files.hash_values({"b": 1, "a": (2, 3)}) == atomic_files.hash_values({"a": [2, 3], "b": 1})
    assert atomic_files.hash_values("ab", "c") != atomic_files.hash_values("a", "bc")
