"""Read text files that other programs saved: UTF-8 with or without a byte order mark, and UTF-16 with one."""

from __future__ import annotations

import codecs
from pathlib import Path

from semicdvl.errors import InputError
from semicdvl.reading.regular_files import read_bytes

BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""What a file begins with -> its encoding. Spreadsheets save "Unicode text" as UTF-16."""


def read_text_file(path: Path) -> str:
    """Return the text of a file; line ends of Windows become those of Unix.

    Raises:
        InputError: the file cannot be read, is no regular file or too large, or is in another encoding.
    """
    return decode_text(path, read_bytes(path, remedy="Check the path"))


def decode_text(path: Path, content: bytes) -> str:
    """Return the text of a file that was read; `path` names it in errors. Line ends and errors as `read_text_file`."""
    found = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), None)
    try:
        text = content.decode(found or "utf-8")
    except UnicodeDecodeError as error:
        encoding = (found or "utf-8").removesuffix("-sig").upper()
        problem = f"is not text in {encoding} (byte {error.start + 1} does not fit)"
        raise InputError(path, problem, "Save it as text in UTF-8; it may be in Latin-1 or Windows-1252 now") from error
    if "\0" in text:
        raise InputError(path, "is UTF-16 without a byte order mark, or no text", "Save it as text in UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")
