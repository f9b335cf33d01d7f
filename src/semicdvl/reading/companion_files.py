"""Files beside a file that a library opens together with it: what is no file there would never end.

GDAL looks for the georeference, the metadata and the overviews of an image, and for the parts of a layer, in files of
the same folder (`a.tfw`, `a.tif.aux.xml`, `a_RPC.TXT`, `METADATA.DIM`, `a.dbf`, `a.gpkg-journal`, ...), some by their
names, some by patterns. It waits for ever for a named pipe, and reads a device or an endless file to its end.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from semicdvl.errors import InputError
from semicdvl.reading.limits import MAX_COMPANION_TEXT_BYTES, MIB
from semicdvl.reading.regular_files import find_kind_fault

TEXT_SUFFIXES = frozenset(
    """
    .att .aux .clr .cpg .cst .dim .eph .geo .hdr .imd .j2w .jgw .jpw .mtl .pgw .points .pox .prj .pvl .qpj .rpb .rpc
    .rsc .stx .tab .tfw .tifw .til .txt .wld .wpw .xml
    """.split()
)
"""Suffixes of texts in which GDAL looks for georeference and metadata of other files, in lower case."""
_REMEDY = "Delete it, or move it to another folder"


def require_plain_companions(path: Path, *, remedy: str = _REMEDY) -> None:
    """Refuse a file beside which lies something that would be opened with it, and that is no file or endless.

    Raises:
        InputError: there is a named pipe, a socket or a device whose name holds that of the file or is that of
            metadata, or such a text of more than `limits.MAX_COMPANION_TEXT_BYTES`.
    """
    folder = path.parent
    try:
        changed_ns = folder.stat().st_mtime_ns
    except OSError:  # whoever opens the file says what is wrong
        return
    own, stem = path.name.casefold(), path.stem.casefold()
    for name, fault in _list_faults(str(folder), changed_ns):
        folded = name.casefold()
        if folded != own and (stem in folded or _is_text(folded)):
            raise InputError(path, f"The file {name} beside it {fault}, and would be read with it", remedy)


@lru_cache(maxsize=256)
def _list_faults(folder: str, changed_ns: int) -> tuple[tuple[str, str], ...]:
    """Return name and fault of what is no plain file in a folder; remembered: training opens files often.

    Args:
        folder: the folder.
        changed_ns: when a name in it was last added or removed; part of the key.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                fault = _find_fault(entry)
                if fault is not None:
                    found.append((entry.name, fault))
    except OSError:
        return ()
    return tuple(sorted(found))


def _find_fault(entry: os.DirEntry[str]) -> str | None:
    """Return why an entry of a folder must not be opened; None where it may, or leads nowhere."""
    is_text = _is_text(entry.name.casefold())
    if entry.is_dir(follow_symlinks=False) or (entry.is_file(follow_symlinks=False) and not is_text):
        return None
    try:
        found = entry.stat()
    except OSError:
        return None
    if (kind := find_kind_fault(found.st_mode)) is not None:
        return kind
    if not is_text or found.st_size <= MAX_COMPANION_TEXT_BYTES:
        return None
    return f"has {found.st_size / MIB:,.0f} MiB of text"


def _is_text(folded_name: str) -> bool:
    return os.path.splitext(folded_name)[1] in TEXT_SUFFIXES  # noqa: PTH122  (asked for every file of a folder)
