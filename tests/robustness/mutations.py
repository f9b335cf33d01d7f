"""Make malformed inputs from sound ones: a seeded generator for each kind of content."""

from __future__ import annotations

import copy
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.robustness.hostile_images import mutate_jpeg, mutate_png, mutate_tiff, mutate_vrt
from tests.robustness.hostile_networks import mutate_onnx
from tests.robustness.hostile_reviews import mutate_review
from tests.robustness.hostile_vectors import mutate_gpkg, mutate_kml, mutate_shapefile, mutate_table

Mutation = tuple[str, bytes]
"""What was done, and the content that it gave."""
STRANGE: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    -(10**30),
    1e308,
    float("nan"),
    float("inf"),
    1e999,
    "",
    "x",
    "nan",
    "../../../etc/passwd",
    "/dev/zero",
    "a" * 300,
    "a" * 10_000,
    "a\nb",
    "a\0b",
    "\ud800",
    "os:system",
    "hf-hub:a/b",
    [],
    {},
    [[]],
    [1, "a", None],
    {"a": 1},
    {"": None},
    [1e308] * 3,
    "é",
    "[red]x",
    [{}] * 3,
    0.5,
    "0",
    -0.0,
    [0] * 1000,
)
"""Values that a field does not expect."""


@dataclass(frozen=True)
class Nested:
    """Text that is inserted as it is: what `json.dumps` would not write."""

    text: str


def mutate_bytes(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield damage that any file may have: cut, flipped, repeated, emptied, replaced."""
    yield "empty", b""
    yield "zeros", bytes(min(len(content), 100_000))
    yield "text", b"this is no such file\n" * 3
    for number in range(count):
        how = rng.choice(("cut", "flip", "insert", "double", "head"))
        at = rng.randrange(max(len(content), 1))
        if how == "cut":
            yield f"cut at {at}", content[:at]
        elif how == "flip":
            changed = bytearray(content)
            places = [
                rng.randrange(min(len(content), 400) if rng.random() < 0.6 else len(content))
                for _ in range(1 + number % 6)
            ]
            for place in places:
                changed[place] ^= 1 << rng.randrange(8)
            yield f"flipped bits at {places}", bytes(changed)
        elif how == "insert":
            yield f"random bytes at {at}", content[:at] + rng.randbytes(rng.choice((1, 8, 500))) + content[at:]
        elif how == "double":
            yield "twice", content + content
        else:
            yield "random head", rng.randbytes(16) + content[16:]


# ------------------------------------------------------------------------------------------------ JSON
def mutate_json(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield JSON with other values, types, keys and nesting, and text that is none."""
    whole = json.loads(content)
    yield "deep lists", b"[" * 100_000
    yield "deep objects", b'{"a":' * 100_000
    yield "closed deep lists", b"[" * 900 + b"]" * 900
    yield "digits", b"1" * 5_000
    yield "a list", b"[]"
    yield "a number", b"1"
    yield "null", b"null"
    yield "byte order mark", b"\xef\xbb\xbf" + content
    yield "UTF-16", content.decode().encode("utf-16")
    yield "Latin-1", content[:-2] + b"\xe9\xff" + content[-2:]
    yield "twice the first key", _repeat_key(content)
    places = list(_list_places(whole))
    for _ in range(count):
        changed, place = copy.deepcopy(whole), rng.choice(places)
        how = rng.choice(("value", "value", "value", "drop", "rename", "nest", "digits"))
        if how == "drop":
            yield f"without {place}", _dump(_change(changed, place, drop=True))
        elif how == "rename":
            yield f"{place} renamed", _dump(_change(changed, place, rename=rng.choice(("", "a" * 300, "x", "\0"))))
        elif how == "nest":
            yield f"{place} nested", _dump(_change(changed, place, Nested("[" * 3_000 + "]" * 3_000)))
        elif how == "digits":
            yield (
                f"{place} of digits",
                _dump(_change(changed, place, Nested(rng.choice("19") * rng.choice((30, 400, 6_000))))),
            )
        else:
            value = rng.choice(STRANGE)
            yield f"{place} = {str(value)[:40]!r}", _dump(_change(changed, place, value))


def _list_places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*place, key)
        yield from _list_places(inner, (*place, key))


def _change(
    whole: Any, place: tuple[Any, ...], value: Any = None, *, drop: bool = False, rename: str | None = None
) -> Any:
    parent = whole
    for key in place[:-1]:
        parent = parent[key]
    if drop:
        del parent[place[-1]]
    elif rename is not None and isinstance(parent, dict):
        parent[rename] = parent.pop(place[-1])
    else:
        parent[place[-1]] = value
    return whole


def _dump(whole: Any) -> bytes:
    marks: dict[str, str] = {}

    def mark(value: Any) -> Any:
        if isinstance(value, Nested):
            name = f"@@{len(marks)}@@"
            marks[f'"{name}"'] = value.text
            return name
        if isinstance(value, dict):
            return {key: mark(inner) for key, inner in value.items()}
        return [mark(inner) for inner in value] if isinstance(value, list) else value

    text = json.dumps(mark(whole))
    for name, inserted in marks.items():
        text = text.replace(name, inserted)
    return text.encode()


def _repeat_key(content: bytes) -> bytes:
    whole = json.loads(content)
    if not isinstance(whole, dict) or not whole:
        return b'{"a": 1, "a": 2}'
    key = next(iter(whole))
    return content.rstrip()[:-1] + f", {json.dumps(key)}: null}}".encode()


# ------------------------------------------------------------------------------------------------ TOML and text
TOML_VALUES = (
    "nan",
    "inf",
    "-inf",
    "1" * 30,
    "1" * 5_000,
    '""',
    '"x"',
    "true",
    "[]",
    "{}",
    "-1",
    "0",
    "1e308",
    "1979-05-27",
    '"/dev/zero"',
    '"a\\nb"',
    '"' + "a" * 300 + '"',
    "[" * 3_000 + "]" * 3_000,
    "1_000_000_000",
    '["a", 1]',
    "{a = {b = {}}}",
    '"os:system"',
    '"\\u0000"',
)


def mutate_toml(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield TOML with other values, keys and sections."""
    yield "base is a device", b'base = "/dev/zero"\n' + content
    yield "base is a folder", b'base = "."\n' + content
    yield "base is itself", b'base = "recipe.toml"\n' + content
    yield "deep", b"a = " + b"[" * 100_000
    yield "deep keys", b".".join([b"a"] * 2_000) + b" = 1\n" + content
    yield "byte order mark", b"\xef\xbb\xbf" + content
    yield "other bytes", b"\xff\xfe" + content
    yield "giant", content + b"\n[model]\nname = 'siam_light'\ndecoder_channels = 1_000_000_000\n"
    lines = content.decode().splitlines()
    settable = [at for at, line in enumerate(lines) if "=" in line]
    for _ in range(count):
        changed, at, how = (
            list(lines),
            rng.choice(settable),
            rng.choice(("value", "value", "value", "drop", "twice", "key")),
        )
        key = lines[at].partition("=")[0]
        if how == "drop":
            del changed[at]
        elif how == "twice":
            changed.insert(at, changed[at])
        elif how == "key":
            changed[at] = rng.choice(("x", '"' + "k" * 300 + '"', '""')) + " =" + lines[at].partition("=")[2]
        else:
            changed[at] = f"{key}= {rng.choice(TOML_VALUES)}"
        yield f"{how}: {changed[min(at, len(changed) - 1)][:60]}", "\n".join(changed).encode()


def mutate_lines(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield lists and tables with other lines."""
    strange = (
        "",
        "\0",
        "a" * 300,
        "a" * 100_000,
        "../../etc/passwd",
        "/dev/zero",
        "é\u202e",
        '"open',
        "a,b,c,d,e",
        "-",
        "[red]",
        "*",
    )
    lines = content.decode().splitlines()
    for _ in range(count):
        changed = list(lines)
        at = rng.randrange(len(lines))
        changed[at] = rng.choice(strange) if rng.random() < 0.7 else changed[at] + "," + rng.choice(strange)
        yield f"line {at + 1}: {changed[at][:30]!r}", rng.choice(("\n", "\r\n", "\r")).join(changed).encode()
    yield "UTF-16", content.decode().encode("utf-16")
    yield "UTF-16 without mark", content.decode().encode("utf-16-le")


# ------------------------------------------------------------------------------------------------ tensors and arrays
def build_safetensors(header: Any, data: bytes, *, length: int | None = None) -> bytes:
    """Return a safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def mutate_safetensors(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield tensors with other headers, types, shapes and places."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    names = [name for name in header if name != "__metadata__"]
    yield "header of exabytes", build_safetensors(header, data, length=2**63 - 1)
    yield "header longer than the file", build_safetensors(header, data, length=len(content) * 2)
    yield "deep header", build_safetensors(b"[" * 50_000, data)
    yield "no tensors", build_safetensors({}, b"")
    yield "metadata of numbers", build_safetensors({**header, "__metadata__": {"a": 1}}, data)
    yield "metadata twice", build_safetensors(json.dumps(header).encode()[:-1] + b', "__metadata__": null}', data)
    yield (
        "93 GB",
        build_safetensors({"a": {"dtype": "F32", "shape": [25_000_000_000], "data_offsets": [0, 10**11]}}, data),
    )
    floats = [
        name
        for name in names
        if header[name]["dtype"] in ("F32", "F16") and header[name]["data_offsets"][0] < header[name]["data_offsets"][1]
    ]
    for value in (float("nan"), float("inf")):
        name = rng.choice(floats)
        start = header[name]["data_offsets"][0]
        kind = "<f" if header[name]["dtype"] == "F32" else "<e"
        packed = struct.pack(kind, value)
        yield f"{name} holds {value}", content[: 8 + length] + data[:start] + packed + data[start + len(packed) :]
    for _ in range(count):
        changed, name = copy.deepcopy(header), rng.choice(names)
        entry = changed[name]
        how = rng.choice(("dtype", "shape", "place", "drop", "rename", "value"))
        if how == "dtype":
            entry["dtype"] = rng.choice(("F64", "I64", "BOOL", "F8_E4M3", "C64", "U16", "X", "", None, 1, "F4"))
        elif how == "shape":
            entry["shape"] = rng.choice(
                (
                    [],
                    [0],
                    [-1],
                    [2**62, 4],
                    [1] * 100,
                    [1.5],
                    "x",
                    None,
                    entry["shape"][::-1],
                    [10**400],
                    entry["shape"] + [1],
                )
            )
        elif how == "place":
            entry["data_offsets"] = rng.choice(([0, 0], [0, 10**12], [-4, 4], [8, 4], [0], "x", None, [0, 4], [1, 5]))
        elif how == "drop":
            del changed[name]
        elif how == "rename":
            changed[rng.choice(("", "x" * 300, "a.b"))] = changed.pop(name)
        else:
            changed[name] = rng.choice(STRANGE)
        try:
            yield f"{how} of {name}", build_safetensors(_dump(changed), data)
        except UnicodeEncodeError:
            continue


def build_npy(header: str, data: bytes = b"", *, version: tuple[int, int] = (1, 0)) -> bytes:
    """Return a .npy file with any header."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H" if version == (1, 0) else "<I", len(text)) + text + data


def mutate_npy(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield arrays with other headers, types and shapes."""
    yield "93 GB", build_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (25000000000,), }", bytes(100))
    yield (
        "exabytes",
        build_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 9), }", bytes(100)),
    )
    yield "negative", build_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3), }", bytes(100))
    yield (
        "objects",
        build_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n(S'true'\ntR."),
    )
    yield "version 3", build_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", bytes(4), version=(3, 0))
    yield "version 9", build_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", bytes(4), version=(9, 0))
    yield "expression", build_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9**9**9,), }", bytes(4))
    yield "deep", build_npy("{'descr': " + "[" * 2_000 + ", 'fortran_order': False, 'shape': (1,), }", bytes(4))
    array = np.load(io.BytesIO(content))
    for dtype in ("c16", "S8", "M8[s]", "?", "f2", "i8", "u1", [("a", "f4")]):
        yield f"of {dtype}", _save(np.zeros(array.shape, dtype))
    for shape in ((), (0,), (0, 0, 0), (1,) * 20, array.shape[::-1], (1, *array.shape)):
        yield f"of shape {shape}", _save(np.zeros(shape, array.dtype))
    for value in (np.nan, np.inf, -1, 1e30):
        yield (
            f"filled with {value}",
            _save(np.full(array.shape, value, array.dtype if array.dtype.kind == "f" else float)),
        )
    yield from mutate_bytes(content, rng, count)


def _save(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def mutate_npz(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield archives with other members, bombs, and encrypted ones."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    yield "no members", _zip({})
    yield (
        "bomb",
        _zip(
            {
                **members,
                "scores.npy": build_npy(
                    "{'descr': '|u1', 'fortran_order': False, 'shape': (300000000,), }", bytes(300_000_000)
                ),
            }
        ),
    )
    yield "encrypted", _set_flag(content)
    yield "a folder", _zip({**members, "../../evil.npy": b"x", "a/": b""})
    yield "a member twice", _append_member(content, next(iter(members)))
    yield "LZMA", _zip(members, method=zipfile.ZIP_LZMA)
    yield "100,000 members", _zip({f"{number}.npy": b"" for number in range(20_000)})
    for name in members:
        yield f"without {name}", _zip({other: inner for other, inner in members.items() if other != name})
        for what, inner in list(mutate_npy(members[name], rng, 2)):
            yield f"{name}: {what}", _zip({**members, name: inner})
    if "scores.npy" in members:
        for size in (10, 10**9):
            packed = np.frombuffer(zlib.compress(bytes(min(size, 10**8))), np.uint8)
            yield f"scores that unpack to {size} bytes", _zip({**members, "scores.npy": _save(packed)})
        for shape in ((0, 0, 0), (1, 10**9, 10**9), (-1, 5, 5), (300, 3, 3), (3,)):
            yield f"scores of shape {shape}", _zip({**members, "shape.npy": _save(np.array(shape))})
        texts = (
            "[" * 5_000,
            "[[1,2,3]]",
            "nul",
            "{}",
            '[[{"size":[1,1],"counts":"~~~~~~~~~~~~~~~~"},0,0.5]]',
            '[[{},99,"x"]]',
            "1" * 6_000,
            '[[{"size":[1e9,1e9],"counts":[1]},0,NaN]]',
        )
        for text in texts:
            yield (
                f"instances {text[:20]}",
                _zip({**members, "instances.npy": _save(np.frombuffer(text.encode(), np.uint8))}),
            )
    yield from mutate_bytes(content, rng, count)


def _zip(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, inner in members.items():
            archive.writestr(name, inner)
    return content.getvalue()


def _append_member(content: bytes, name: str) -> bytes:
    import warnings

    changed = io.BytesIO(content)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(changed, "a") as archive:
        archive.writestr(name, b"other")
    return changed.getvalue()


def _set_flag(content: bytes) -> bytes:
    """Say of every member that it is encrypted."""
    changed = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = changed.find(mark)
        while at >= 0:
            changed[at + offset] |= 1
            at = changed.find(mark, at + 1)
    return bytes(changed)


def mutate_geojson(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield polygons with other rings and coordinates, and GeoJSON that is none."""
    whole = json.loads(content)
    ring = whole["features"][0]["geometry"]["coordinates"]
    while isinstance(ring[0][0], list):
        ring = ring[0]
    (x, y), (x2, y2) = ring[0][:2], ring[2][:2]
    box = [[x, y], [x2, y], [x2, y2], [x, y2], [x, y]]
    rings = {
        "unclosed": box[:-1],
        "two points": box[:2],
        "one point": box[:1],
        "empty": [],
        "1e308": [[1e308, 1e308], [1e308, y], [x, y], [1e308, 1e308]],
        "bow": [[x, y], [x2, y2], [x2, y], [x, y2], [x, y]],
        "no area": [[x, y]] * 4,
        "far": [[1e20, 1e20], [1e20, y], [x, y], [1e20, 1e20]],
        "3D": [[*point, 5] for point in box],
        "one number": [[x], [y], [x2], [x]],
        "texts": [["a", "b"]] * 4,
        "nulls": [[None, None]] * 4,
        "NaN": [[float("nan")] * 2, [x, y], [x2, y], [float("nan")] * 2],
    }
    for name, points in rings.items():
        for place in (0, 1):
            changed = copy.deepcopy(whole)
            rows = changed["features"][:3]
            rows.insert(
                place, {"type": "Feature", "properties": {}, "geometry": {"type": "Polygon", "coordinates": [points]}}
            )
            changed["features"] = rows
            yield f"ring {name} in row {place + 1}", json.dumps(changed).encode()
    yield from mutate_json(content, rng, count)


MUTATORS: dict[str, Callable[[bytes, random.Random, int], Iterator[Mutation]]] = {
    "json": mutate_json,
    "toml": mutate_toml,
    "lines": mutate_lines,
    "safetensors": mutate_safetensors,
    "npy": mutate_npy,
    "npz": mutate_npz,
    "geojson": mutate_geojson,
    "bytes": mutate_bytes,
    "tiff": mutate_tiff,
    "png": mutate_png,
    "jpeg": mutate_jpeg,
    "vrt": mutate_vrt,
    "gpkg": mutate_gpkg,
    "kml": mutate_kml,
    "shapefile": mutate_shapefile,
    "table": mutate_table,
    "onnx": mutate_onnx,
    "review": mutate_review,
}


def mutate(kind: str, content: bytes, *, seed: int, count: int) -> list[Mutation]:
    """Return malformed contents of a kind: special ones, `count` random ones of the kind, and some of damaged bytes."""
    rng = random.Random(f"{kind} {seed}")
    made = list(MUTATORS[kind](content, rng, count))
    return made if kind in ("bytes", "npz", "npy") else [*made, *mutate_bytes(content, rng, max(3, count // 4))]
