"""Read a table of image pairs (CSV or Parquet: before, after, name), or raise one error that lists its faults.

The whole table is checked before any pair is processed, so that a wrong path in its last line shows at once.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semicdvl.errors import InputError, MissingExtraError
from semicdvl.raster.io.inputs import is_local_name, resolve_input
from semicdvl.reading.folder_kinds import describe_folder, is_folder
from semicdvl.reading.limits import MAX_TABLE_COLUMNS
from semicdvl.reading.regular_files import exists, resolve_links
from semicdvl.registry import suggest_nearest
from semicdvl.text_files import read_text_file

REQUIRED_COLUMNS = ("before", "after")
KNOWN_COLUMNS = (*REQUIRED_COLUMNS, "name")
TEXT_SUFFIXES, PARQUET_SUFFIXES = (".csv", ".tsv", ".txt"), (".parquet", ".geoparquet")
DELIMITERS = ",;\t"
MAX_LISTED_FAULTS = 5
"""Number of faults that an error lists; further ones are only counted."""
MAX_NAME_BYTES = 200
"""Longest name in bytes: most file systems allow 255, and the name of a work folder is a little longer."""


@dataclass(frozen=True)
class BatchPair:
    """One line of a table of pairs.

    Attributes:
        name: of the pair and of the folder of its result.
        before: date 1, as `raster.io.inputs.resolve_input` takes it; paths are resolved.
        after: date 2.
    """

    name: str
    before: str
    after: str


@dataclass(frozen=True)
class PairsTable:
    """A checked table of pairs.

    Attributes:
        path: the file.
        pairs: its lines, with unique names.
        notes: remarks on how it was read.
    """

    path: Path
    pairs: tuple[BatchPair, ...]
    notes: tuple[str, ...] = ()


TableRows = list[tuple[str, dict[str, str]]]
"""Location of a row ("line 3") and its cells by column; an empty cell is ""."""


def read_pairs(path: Path) -> PairsTable:
    """Read and check a table of pairs.

    Columns are `before`, `after` and, optionally, `name`. A column with a name similar to a missing one
    counts as a misspelling and is refused; other columns are ignored with a note. Paths are relative to the folder of
    the table; a cell is whatever `detect` accepts for a date (a file, a folder, `a.tif,b.tif`, a pattern, an address).
    Addresses and names of GDAL (`/vsi...`) are used as they are, and not checked in advance. Without a name, a pair is
    named after its files: `0001` for A/0001.tif and B/0001.tif, otherwise `before-after`.

    Args:
        path: CSV (comma, semicolon or tab; UTF-8), or Parquet and GeoParquet with semicdvl[parquet].

    Raises:
        InputError: the file cannot be read, holds no pair, lacks a column, or some of its lines are faulty: an empty
            cell, a missing file, a duplicate name, or a name that cannot be that of a folder.
        MissingExtraError: Parquet without pyarrow.
    """
    suffix = path.suffix.lower()
    if suffix not in TEXT_SUFFIXES + PARQUET_SUFFIXES:
        raise InputError(
            path,
            f"is {describe_folder(path)}, not a table of pairs" if is_folder(path) else "is not a table of pairs",
            f"Give a file with one of the suffixes {', '.join(TEXT_SUFFIXES + PARQUET_SUFFIXES)}",
        )
    if not path.is_file():
        raise InputError(path, "does not exist", "Give a table with the columns before, after and, optionally, name")
    columns, rows = (_read_parquet if suffix in PARQUET_SUFFIXES else _read_csv)(path)
    if len(columns) > MAX_TABLE_COLUMNS:
        problem = f"has {len(columns):,} columns, and up to {MAX_TABLE_COLUMNS:,} are read"
        raise InputError(path, problem, "Keep the columns before, after and, optionally, name")
    notes = _check_columns(path, columns)
    if not rows:
        raise InputError(path, "holds no pair", "Write one line per pair below the line with the column names")
    faults: list[str] = []
    pairs = [_parse_row(path.absolute().parent, where, cells, faults) for where, cells in rows]
    _raise_faults(path, faults or list(_find_duplicates(rows, pairs)))
    return PairsTable(path, tuple(pairs), notes)


def _raise_faults(path: Path, faults: Sequence[str]) -> None:
    """Raise one error for all faults."""
    if not faults:
        return
    more = [f"and {len(faults) - MAX_LISTED_FAULTS} more"] if len(faults) > MAX_LISTED_FAULTS else []
    raise InputError(
        path, "; ".join([*faults[:MAX_LISTED_FAULTS], *more]), "Nothing was started. Correct the table and run again"
    )


# ------------------------------------------------------------------------------------------------ files
def _read_csv(path: Path) -> tuple[list[str], TableRows]:
    """Read a CSV: its columns and its rows that are not empty."""
    text = read_text_file(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text), delimiter=max(DELIMITERS, key=first.count), skipinitialspace=True)
    columns: list[str] | None = None
    rows: TableRows = []
    try:
        for cells in reader:
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if columns is None:
                columns = cells
                continue
            if len(cells) > len(columns):
                problem = f"line {reader.line_num} has {len(cells)} cells, the first line names {len(columns)} columns"
                raise InputError(path, problem, 'Put cells with commas in quotation marks: "a.tif,b.tif"')
            padded = cells + [""] * (len(columns) - len(cells))
            rows.append((f"line {reader.line_num}", dict(zip(columns, padded, strict=True))))
    except csv.Error as error:
        raise InputError(path, f"line {reader.line_num} cannot be read as CSV ({error})", "Save it again") from error
    return columns or [], rows


def _read_parquet(path: Path) -> tuple[list[str], TableRows]:
    """Read the known columns of a Parquet file; geometries are not read."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(f"{path}: Parquet needs pyarrow. Install semicdvl[parquet], or give a CSV.") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
            table = file.read(columns=[name for name in columns if name in KNOWN_COLUMNS]).to_pydict()
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(path, f"cannot be read as parquet ({reason})", "Write it again") from error
    rows = zip(*table.values(), strict=True)
    return columns, [
        (f"row {at}", dict(zip(table, map(_format_cell, row), strict=True))) for at, row in enumerate(rows, 1)
    ]


def _format_cell(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _check_columns(path: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """Refuse missing, duplicate and misspelt columns; return a note on ignored ones."""
    others = [name for name in columns if name not in KNOWN_COLUMNS]
    for name in REQUIRED_COLUMNS:
        if name not in columns:
            meant = suggest_nearest(name, others).replace("Did you mean", "Is it").strip()
            named_columns = ", ".join(columns) or "none"
            remedy = f"{meant} The columns are before, after and, optionally, name".strip()
            raise InputError(path, f"has no column '{name}', only {named_columns}", remedy)
    if twice := sorted({name for name in columns if columns.count(name) > 1}):
        raise InputError(path, f"has the column '{twice[0]}' twice", "Name each column once")
    if "name" not in columns and (meant := suggest_nearest("name", others)):
        wrong = meant.split("'")[1]
        raise InputError(
            path,
            f"has a column '{wrong}', which is not known",
            "Rename it to name, or to something that is not similar",
        )
    aside = [name for name in others if name]
    return (f"{path.name}: the columns {', '.join(aside)} are ignored",) if aside else ()


# ------------------------------------------------------------------------------------------------ rows
def _parse_row(folder: Path, where: str, cells: dict[str, str], faults: list[str]) -> BatchPair:
    """Return the pair of a row; its faults are added to `faults`."""
    dates = {}
    for column in REQUIRED_COLUMNS:
        dates[column] = _resolve_paths(folder, cells[column]) if cells[column] else ""
        fault = _find_image_fault(dates[column]) if cells[column] else "is empty"
        if fault:
            faults.append(f"{where}: {column} {fault}")
    name = cells.get("name") or _derive_name(cells["before"], cells["after"])
    if fault := _find_name_fault(name):
        faults.append(f"{where}: the name {name!r} {fault}")
    return BatchPair(name, dates["before"], dates["after"])


def _resolve_paths(folder: Path, text: str) -> str:
    """Return a cell with its paths relative to the folder of the table."""
    if "://" in text or text.startswith("/vsi") or ("," not in text and not is_local_name(text)):
        return text
    if "," not in text or exists(folder / text):
        path = folder / text
        return str(resolve_links(path) if ".." in path.parts else path)
    return ",".join(_resolve_paths(folder, part.strip()) for part in text.split(",") if part.strip())


def _find_image_fault(given: str) -> str | None:
    """Return the fault of an image that shows without opening it; None if there is none."""
    try:
        parts = resolve_input(given).gdal_names
    except InputError as error:
        return f"{error.path}: {error.problem}"
    missing = [part for part in parts if is_local_name(part) and not exists(part)]
    return f"{missing[0]} does not exist" if missing else None


def _derive_name(before: str, after: str) -> str:
    """Return a name for a pair without one."""
    stems = [_extract_stem(text) for text in (before, after)]
    return stems[0] if stems[0] == stems[1] else "-".join(stem for stem in stems if stem)


def _extract_stem(text: str) -> str:
    """Return the stem of an image: its (first) file without suffix, or its folder."""
    first = re.split(r"[,?]", text, maxsplit=1)[0].rstrip("/")
    path = Path(first)
    path = path.parent if any(sign in path.name for sign in "*[") else path
    stem = path.stem if re.fullmatch(r"\.[A-Za-z][A-Za-z0-9]{1,5}", path.suffix) else path.name  # keeps tiles-v1.2
    return re.sub(r"[^\w.-]+", "_", stem).strip("._")


def _find_name_fault(name: str) -> str | None:
    """Return why a name cannot be that of a result folder; None if it can."""
    if not name:
        return "is empty"
    if "/" in name or "\\" in name or name in (".", ".."):
        return "leads out of the output folder (use a plain name without / and \\)"
    if name.startswith("."):
        return "would be hidden (begin with a letter or a digit)"
    if not name.isprintable() or len(name.encode()) > MAX_NAME_BYTES:
        return f"cannot name a folder (use at most {MAX_NAME_BYTES} bytes of plain text)"
    if name.casefold() in ("index.html", "pairs.json"):
        return "is that of a file of the index (use another)"
    return None


def _find_duplicates(rows: TableRows, pairs: Sequence[BatchPair]) -> Iterator[str]:
    """Yield a fault for each name that an earlier row has; some file systems ignore upper and lower case."""
    first: dict[str, str] = {}
    for (where, cells), pair in zip(rows, pairs, strict=True):
        earlier = first.setdefault(pair.name.casefold(), where)
        if earlier != where:
            remedy = "" if cells.get("name") else " (made from the file names; a column `name` can distinguish them)"
            yield f"{where}: the name '{pair.name}' is also that of {earlier}{remedy}"
