"""Hostile vectors, tables and networks: GeoPackage, KML, shapefile, CSV and ONNX that say what cannot be."""

from __future__ import annotations

import random
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.robustness.hostile_images import LAUGHS, Mutation

NAN = float("nan")


def build_blob(wkb: bytes, *, magic: bytes = b"GP", version: int = 0, flags: int = 1, srs: int = 32632) -> bytes:
    """Return a geometry of a GeoPackage."""
    return magic + bytes([version, flags]) + struct.pack("<i", srs) + wkb


def build_ring(points: list[tuple[float, float]]) -> bytes:
    """Return a polygon of one ring in WKB."""
    return struct.pack("<BIII", 1, 3, 1, len(points)) + b"".join(struct.pack("<dd", *point) for point in points)


def build_nested(depth: int) -> bytes:
    """Return a collection of collections."""
    return struct.pack("<BII", 1, 7, 1) * depth + build_ring([(0, 0), (1, 0), (1, 1), (0, 0)])


def mutate_gpkg(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield GeoPackages with other tables, triggers, and geometries that are none."""
    blobs = {
        "nothing": b"",
        "noise": b"\xff" * 60,
        "another magic": build_blob(build_ring([(0, 0), (1, 0), (1, 1), (0, 0)]), magic=b"XX"),
        "version 9": build_blob(build_ring([(0, 0), (1, 0), (1, 1), (0, 0)]), version=9),
        "an envelope beyond the end": build_blob(b"", flags=9),
        "2^32 rings": build_blob(struct.pack("<BII", 1, 3, 2**32 - 1)),
        "2^32 points": build_blob(struct.pack("<BIII", 1, 3, 1, 2**32 - 1)),
        "type 999": build_blob(struct.pack("<BII", 1, 999, 1)),
        "a point": build_blob(struct.pack("<BIdd", 1, 1, 0.0, 0.0)),
        "a curve": build_blob(struct.pack("<BII", 1, 10, 0)),
        "a ring of NaN": build_blob(build_ring([(NAN, NAN)] * 4)),
        "a ring of 1e308": build_blob(build_ring([(1e308, 0), (0, 1e308), (-1e308, 0), (1e308, 0)])),
        "a ring of two": build_blob(build_ring([(0, 0), (1, 1)])),
        "100 levels": build_blob(build_nested(100)),
        "100,000 levels": build_blob(build_nested(100_000)),
        "another CRS": build_blob(build_ring([(0, 0), (1, 0), (1, 1), (0, 0)]), srs=-1),
        "text": "POLYGON ((0 0, 1 0, 1 1, 0 0))",
        "a number": 7,
        "null": None,
    }
    table, column = _find_table(content)
    for name, blob in blobs.items():
        yield f"geometry: {name}", edit_database(content, f'UPDATE "{table}" SET "{column}" = ?', blob)
    scripts = {
        "no table": f'DROP TABLE "{table}"',
        "no contents": "DROP TABLE gpkg_contents",
        "no columns": "DELETE FROM gpkg_geometry_columns",
        "no CRS": "DELETE FROM gpkg_spatial_ref_sys",
        "a CRS that is none": "UPDATE gpkg_spatial_ref_sys SET definition = 'no CRS'",
        "a CRS behind an address": "UPDATE gpkg_spatial_ref_sys SET definition = 'http://127.0.0.1:1/crs'",
        "another kind": "UPDATE gpkg_contents SET data_type = 'tiles'",
        "a name of 10,000": "UPDATE gpkg_contents SET identifier = rowid || hex(zeroblob(5000))",
        "an extent of text": "UPDATE gpkg_contents SET min_x = 'a', max_x = 'b'",
        "another column": "UPDATE gpkg_geometry_columns SET column_name = 'nothing'",
        "a million rows": f'INSERT INTO "{table}" ("{column}") WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 '
        f"FROM n WHERE i < 300000) SELECT zeroblob(4) FROM n",
        "a trigger": f'CREATE TRIGGER t AFTER INSERT ON "{table}" BEGIN SELECT load_extension("/tmp/x"); END',
        "a view that never ends": f'ALTER TABLE "{table}" RENAME TO other; CREATE VIEW "{table}" AS WITH RECURSIVE '
        f'n(fid, "{column}") AS (SELECT 1, NULL UNION ALL SELECT fid + 1, NULL FROM n) SELECT * FROM n',
        "an extension": "CREATE TABLE IF NOT EXISTS gpkg_extensions (table_name, column_name, extension_name, "
        "definition, scope); INSERT INTO gpkg_extensions VALUES (NULL, NULL, 'x', 'x', 'read-write')",
    }
    for name, script in scripts.items():
        yield name, edit_database(content, script)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(8):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        yield "flipped bits", bytes(changed)


def _find_table(content: bytes) -> tuple[str, str]:
    return _query(content, "SELECT table_name, column_name FROM gpkg_geometry_columns")


def _query(content: bytes, question: str) -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gpkg"
        path.write_bytes(content)
        database = sqlite3.connect(path)
        found: tuple[str, str] = database.execute(question).fetchone()
        database.close()
        return found


def edit_database(content: bytes, script: str, *values: object) -> bytes:
    """Return a GeoPackage after some SQL; its own triggers, which need functions of GDAL, are dropped first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gpkg"
        path.write_bytes(content)
        database = sqlite3.connect(path)
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        if values:
            database.execute(script, values)
        else:
            database.executescript(script)
        database.commit()
        database.close()
        return path.read_bytes()


KML = (
    '<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{}<Placemark><Polygon><outerBoundaryIs><LinearRing>'
    "<coordinates>{}</coordinates></LinearRing></outerBoundaryIs></Polygon></Placemark></Document></kml>"
)


def mutate_kml(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield KML with other coordinates, links and nesting."""
    coordinates = ("", "1", "a,b c,d e,f a,b", "nan,nan nan,nan nan,nan", "1e999,0 0,1e999 1,1", "1,2," * 100_000)
    for text in coordinates:
        yield f"coordinates {text[:20]}", KML.format("", text).encode()
    ring = "9,45 9.1,45 9.1,45.1 9,45"
    for link in ("http://127.0.0.1:1/a.kml", "file:///etc/passwd", "../../a.kml", "truth.kml"):
        yield f"a link to {link}", KML.format(f"<NetworkLink><Link><href>{link}</href></Link></NetworkLink>", ring).encode()  # fmt: skip  # noqa: E501
    yield "deep folders", b'<kml xmlns="http://www.opengis.net/kml/2.2">' + b"<Folder>" * 50_000
    yield "closed deep folders", KML.format("<Folder>" * 2_000 + "</Folder>" * 2_000, ring).encode()
    yield "entities of entities", LAUGHS
    yield (
        "an entity of a file",
        b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + KML.format("", "&e;").encode(),
    )
    yield "UTF-16", KML.format("", ring).encode("utf-16")
    yield "100,000 places", KML.format("<Placemark/>" * 100_000, ring).encode()
    yield "no XML", b"<kml"


def mutate_shapefile(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield shapefiles whose records are longer than they are, or of other kinds."""
    for name, at, value in (
        ("another magic", 0, b"\0\0\0\0"),
        ("a length of 2^31", 24, struct.pack(">i", 2**31 - 1)),
        ("a length of 0", 24, bytes(4)),
        ("type 99", 32, struct.pack("<i", 99)),
        ("an extent of NaN", 36, struct.pack("<4d", *[NAN] * 4)),
        ("a record of 2^31", 104, struct.pack(">i", 2**31 - 1)),
        ("a record of -1", 104, struct.pack(">i", -1)),
        ("a record of type 31", 108, struct.pack("<i", 31)),
        ("2^31 parts", 144, struct.pack("<i", 2**31 - 1)),
        ("-1 parts", 144, struct.pack("<i", -1)),
        ("2^31 points", 148, struct.pack("<i", 2**31 - 1)),
        ("a part beyond the end", 152, struct.pack("<i", 10**6)),
        ("a point of NaN", 156, struct.pack("<dd", NAN, NAN)),
        ("a point of 1e308", 156, struct.pack("<dd", 1e308, -1e308)),
    ):
        yield name, content[:at] + value + content[at + len(value) :]
    for _ in range(count):
        at = rng.randrange(100, len(content))
        yield f"cut at {at}", content[:at]


# ------------------------------------------------------------------------------------------------ tables
NAMES = (
    "..", ".", "", " ", "-o", "--help", "a/b", "/abs", "a\\b", "~", "a" * 256, "é" * 200, "\u202eabc", "a\tb", "CON",
    "nul.txt", "a.", "a ", "index.html", "pairs.json", ".hidden", ".part-x", ".old-x", "*", "a:b", "\x1b[31m",
    "\x7f", "one\u0301", "<b>", "%00", "${HOME}", "`id`", "$(id)", "a;id", "'", "\u0130",
)  # fmt: skip
"""Names of pairs that some file system, shell, terminal or page takes for something else."""


def mutate_table(content: bytes, rng: random.Random, count: int) -> Iterator[Mutation]:
    """Yield lists of pairs in other encodings and dialects, with names that are none."""
    row = "before.tif,after.tif"
    for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "shift_jis", "utf-7"):
        text = "before,after,name\nbefore.tif,after.tif,caf\u00e9\n"
        yield f"in {encoding}", text.encode(encoding, errors="replace")
    yield "in two encodings", "before,after,name\nbefore.tif,after.tif,é\n".encode() + b"before.tif,after.tif,\xe9\n"
    for mark in (";", "\t", "|", " ", ", ", "\0"):
        yield f"with {mark!r}", f"before{mark}after{mark}name\nbefore.tif{mark}after.tif{mark}one\n".encode()
    for name in NAMES:
        yield f"a pair named {name[:20]!r}", f'before,after,name\n{row},"{name}"\n'.encode()
    for first, second in (("one", "one"), ("one", "ONE"), ("e\u0301", "\u00e9"), ("one", "one "), ("a", "a/b")):
        yield f"pairs named {first!r} and {second!r}", f"before,after,name\n{row},{first}\n{row},{second}\n".encode()
    yield "a header twice", f"before,after,after\n{row},after.tif\n".encode()
    yield "no header", f"{row}\n".encode()
    yield "a header alone", b"before,after,name\n"
    yield "an open quote", f'before,after,name\n{row},"one\n'.encode()
    yield "a field of 2 MB", f"before,after,name\n{row},{'a' * 2_000_000}\n".encode()
    yield "a path of 2 MB", f"before,after,name\n{'a' * 2_000_000},after.tif,one\n".encode()
    yield "100,000 rows", ("before,after,name\n" + "".join(f"x.tif,y.tif,n{n}\n" for n in range(100_000))).encode()
    yield "10,000 columns", ("before,after," + ",".join(f"c{n}" for n in range(10_000)) + f"\n{row}\n").encode()
    yield "old line ends", f"before,after,name\r{row},one\r".encode()
    yield "a formula", f"before,after,name\n{row},=cmd|'/c calc'!A0\n".encode()
