"""Coordinate systems that name files, which PROJ would open wherever they lie."""

from __future__ import annotations

import html
import re
from pathlib import Path

from semicdvl.errors import InputError

FILE_OF_CRS = re.compile(
    r'(?:grids|\+file)\s*=\s*([^\s"\'<]+)|(?:parameterfile\s*\[\s*"[^"]*"|"proj4_grids")\s*,\s*"([^"]*)"',
    re.IGNORECASE,
)
"""What a CRS that names a file or a grid has in its text."""


def require_plain_crs(text: str, display_name: str | Path) -> None:
    """Refuse a CRS that names the path or address of a grid of datum shifts: PROJ would open it, or wait for a pipe.

    Names without a folder are those of PROJ's own grids (`@null`, `ntf_r93.gsb`).

    Args:
        text: the CRS as well-known text or as a PROJ string.
        display_name: name of the file in messages.

    Raises:
        InputError: it names one.
    """
    for match in FILE_OF_CRS.finditer(html.unescape(text)):
        for name in (match[1] or match[2] or "").split(","):
            if re.search(r"[/\\:]", name):
                problem = f"Its CRS names the file '{name[:120]}', which is not opened"
                raise InputError(display_name, problem, "Give it a CRS with an EPSG code")
