"""Files are believed only as far as their bytes go, and every fault has a name."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save
from tests.robustness.mutations import build_npy, build_safetensors
from tests.support.command import command
from tests.support.paths import ROOT

from semicdvl.errors import InputError
from semicdvl.raster.io.open_pair import open_pair
from semicdvl.reading import limits
from semicdvl.reading.array_files import read_npy, read_npz
from semicdvl.reading.json_files import check_values, parse_json, read_json
from semicdvl.reading.regular_files import (
    PLACE_ERRORS,
    describe_place_error,
    exists,
    find_file_fault,
    find_path_fault,
    is_file,
    read_bytes,
)
from semicdvl.reading.tensor_files import read_header, read_tensors


def put(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


# ------------------------------------------------------------------------------------------------ JSON
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e999]", "infinite or none"),
        ("[" * 101 + "]" * 101, "more than 100 levels"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 30, "more digits than 64 bits hold"),
        ("1" * 5_000, "digits"),
        ('"\\ud800"', "half a character"),
        ('{"a\\u0000": 1}', "zero byte"),
    ],
)
def test_json_that_is_not_plain_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        parse_json(text)


def test_a_key_that_occurs_twice_among_many_is_found_at_once() -> None:
    text = "{" + ",".join(f'"key{number}": 1' for number in (*range(60_000), 59_999)) + "}"
    began = time.process_time()
    with pytest.raises(ValueError, match="the key 'key59999' occurs twice"):
        parse_json(text)
    assert time.process_time() - began < 5, "compared with each other they take minutes"


PLAIN: Any = st.recursive(
    st.none() | st.booleans() | st.integers(1 - 2**63, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(PLAIN)
def test_plain_values_come_back(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value


@settings(deadline=None, max_examples=100)
@given(st.text() | st.binary().map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        check_values(parse_json(text))
    except ValueError:
        pass


def test_what_is_parsed_at_the_limits() -> None:
    assert parse_json("[" * 100 + "]" * 100) is not None
    assert parse_json(str(2**63 - 1)) == 2**63 - 1


# ------------------------------------------------------------------------------------------------ files
def test_a_file_beyond_its_size_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "a.txt", b"12345")
    assert read_bytes(path, remedy="Cut it", max_bytes=5) == b"12345"
    with pytest.raises(InputError, match=r"a\.txt: has 0 MiB, and files of this kind are read up to 0 MiB\. Cut it\."):
        read_bytes(path, remedy="Cut it", max_bytes=4)


def test_what_is_no_file_has_a_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert find_file_fault(tmp_path / "pipe") == "is a named pipe"
    assert find_file_fault("/dev/zero") == "is a device"
    assert find_file_fault(tmp_path) is None and find_file_fault(tmp_path / "missing") is None
    assert find_path_fault("a" * 255) is None and find_path_fault("é" * 127) is None
    assert find_path_fault("a" * 256) == "has a name of 256 bytes, and 255 are possible"
    assert find_path_fault("/".join(["a"] * 3_000)) == "has 5,999 bytes in its name, and 4,095 are possible"
    assert find_path_fault("a\0b") == "has a zero byte in its name"
    with pytest.raises(InputError, match="is a folder, not a file"):
        read_json(tmp_path, remedy="Give a file")


# ------------------------------------------------------------------------------------------------ arrays
@settings(deadline=None, max_examples=40)
@given(
    hnp.arrays(st.sampled_from(["f4", "f8", "u1", "i8", "?"]), hnp.array_shapes(min_dims=0, max_dims=4, max_side=4)),
    st.booleans(),
)
def test_arrays_come_back(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, columns: bool) -> None:
    folder = tmp_path_factory.getbasetemp()
    array = np.asfortranarray(array) if columns else array
    np.save(folder / "a.npy", array)
    np.savez_compressed(folder / "a.npz", one=array, two=array[..., None])
    found = read_npy(folder / "a.npy", remedy="")
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    both = read_npz(folder / "a.npz", remedy="")
    np.testing.assert_array_equal(both["one"], array)
    np.testing.assert_array_equal(both["two"], array[..., None])


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (25000000000,), }", "announces 100,000,000,000 bytes"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (24,), }", "announces 96 bytes of values, and 100 are"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (-5, -5), }", "impossible"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", "not real numbers"),
        ("{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", "not real numbers"),
    ],
)
def test_headers_of_arrays_are_checked(header: str, why: str, tmp_path: Path) -> None:
    path = put(tmp_path, "a.npy", build_npy(header, bytes(100)))
    with pytest.raises(InputError, match=why):
        read_npy(path, remedy="Save it again")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.write(path, "a.npy")
    with pytest.raises(InputError, match=why):
        read_npz(tmp_path / "a.npz", remedy="Save it again")


def test_archives_that_are_bombs_or_encrypted_are_refused(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, a=np.zeros(9))
    raw = bytearray(content.getvalue())
    raw[6] |= 1
    raw[raw.find(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(InputError, match="encrypted"):
        read_npz(put(tmp_path, "a.npz", bytes(raw)), remedy="")
    at = raw.find(b"PK\x01\x02")
    raw[6] &= 0xFE
    raw[at + 8] &= 0xFE
    raw[at + 24 : at + 28] = (2**31).to_bytes(4, "little")
    with pytest.raises(InputError, match="would unpack to 2,048 MiB, which cannot be right"):
        read_npz(put(tmp_path, "b.npz", bytes(raw)), remedy="")


# ------------------------------------------------------------------------------------------------ tensors
@pytest.mark.parametrize(
    ("header", "why"),
    [
        ({"a": {"dtype": "F32", "shape": [25_000_000_000], "data_offsets": [0, 10**11]}}, "does not fit its bytes"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "does not fit its bytes"),
        ({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, "a type that weights do not have"),
        ({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, "no shape and place"),
        ({"a": 1}, "a type that weights do not have"),
        (b"[" * 5_000, "nested"),
        (b'{"a": {}, "a": {}}', "occurs twice"),
        ({"__metadata__": {"a": 1}}, "no texts"),
    ],
)
def test_headers_of_tensors_are_checked(header: Any, why: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=why):
        read_header(put(tmp_path, "a.safetensors", build_safetensors(header, bytes(8))), remedy="Train again")


def test_tensors_come_back_with_their_notes(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.ones(2, dtype=torch.float16)}
    path = put(tmp_path, "a.safetensors", save(tensors, {"who": "me"}))
    found, notes = read_tensors(path, remedy="")
    assert notes == {"who": "me"} and found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_as_tensors(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = put(tmp_path_factory.getbasetemp(), "any.safetensors", content)
    with pytest.raises(InputError, match="Train again"):
        read_header(path, remedy="Train again")


# ------------------------------------------------------------------------------------------------ documentation
def test_every_limit_is_documented() -> None:
    page = (ROOT / "docs/reference/limits.md").read_text()
    assert {name for name in vars(limits) if name.startswith("MAX_")} == set(re.findall(r"`(MAX_\w+)`", page))
    shown = {
        "MAX_TEXT_BYTES": 256 * limits.MIB,
        "MAX_RECIPE_BYTES": 16 * limits.MIB,
        "MAX_JSON_BYTES": 512 * limits.MIB,
    }
    shown |= {"MAX_ARRAY_BYTES": 8 * limits.GIB, "MAX_WEIGHTS_BYTES": 64 * limits.GIB, "MAX_COORDINATE": 1e15}
    for name, value in shown.items():
        assert getattr(limits, name) == value
    for name in ("MAX_NESTING", "MAX_ARRAY_AXES", "MAX_TENSORS", "MAX_NETWORK_OPTION", "MAX_WORDS", "MAX_PICTURE_PX"):
        line = next(line for line in page.splitlines() if f"`{name}`" in line)
        assert f"{getattr(limits, name):,}" in line


# ------------------------------------------------------------------------------------------------ names and permissions
@pytest.mark.parametrize("name", ["a" * 300, "é" * 200, "a/" * 3_000, "a\0b", "loop", "file/below", "missing"])
def test_a_name_that_the_system_does_not_take_is_that_of_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    put(tmp_path, "file", b"")
    assert not exists(tmp_path / name) and not is_file(tmp_path / name)
    assert exists(tmp_path / "file") and is_file(tmp_path / "file") and exists(tmp_path) and not is_file(tmp_path)


def test_a_file_that_may_not_be_read_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "a.tif", b"II*\0")
    monkeypatch.setattr(os, "access", lambda *_: False)  # as root, who may run the tests, one may read everything
    with pytest.raises(InputError, match=r"a\.tif: cannot be read \(Permission denied\)\. Give an image"):
        open_pair(path, path)


@pytest.mark.parametrize("number", sorted(PLACE_ERRORS))
def test_errors_of_the_system_about_a_place_are_one_line(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise OSError(number, os.strerror(number), "some/where")

    monkeypatch.setattr("semicdvl.cli.app", fail)
    code, _, complaint = command(capsys, "list")
    assert code == 2 and complaint.startswith(f"error: some/where: cannot be used ({os.strerror(number)}). Check")
    assert describe_place_error(OSError(number, "of no file")) is None
    assert describe_place_error(FileNotFoundError(errno.ENOENT, "a fault of this program", "x")) is None
