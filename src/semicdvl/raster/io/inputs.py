"""What a user gives for one date -> the names that GDAL opens: files, folders, lists, addresses.

Addresses stay text from the command line to GDAL: as `pathlib.Path`, `https://host/a.tif` loses a slash (it gets it
back here, for callers that made one).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from semicdvl.errors import InputError

ImageInput = str | Path | Sequence[str | Path]
"""One image, or several that make a mosaic: see `named`."""

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2")
"""What is taken of a folder."""
URL_SCHEMES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "ftp": "/vsicurl/ftp://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
    "file": "/",
}
NETWORK_PREFIXES = (
    "/vsicurl",
    "/vsis3",
    "/vsigs",
    "/vsiaz",
    "/vsiadls",
    "/vsioss",
    "/vsiswift",
    "/vsiwebhdfs",
    "/vsihdfs",
)
NETWORK_TIMEOUTS = {
    "GDAL_HTTP_CONNECTTIMEOUT": "15",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",
    "GDAL_HTTP_MAX_RETRY": "2",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
}
"""How long an address may keep one waiting: 15 s for a connection, 30 s without a byte. GDAL itself would wait for
ever. A variable of the same name in the environment wins."""
_CREDENTIALS = re.compile(r"//[^/@]*@|\?.*$")
_GDAL_PREFIX = re.compile(r"[A-Z][A-Z0-9_]+:")


@dataclass(frozen=True)
class ResolvedInput:
    """The name of one date.

    Attributes:
        gdal_names: what GDAL opens, one per file; later ones lie over earlier ones.
        display_name: what the user gave, without what may be secret in an address (passwords, signatures).
    """

    gdal_names: tuple[str, ...]
    display_name: str

    def __str__(self) -> str:
        """Return what the user gave."""
        return self.display_name

    @property
    def is_remote(self) -> bool:
        """Whether a part of it comes over the network."""
        return any(is_remote_name(part) for part in self.gdal_names)


def resolve_input(image: ImageInput) -> ResolvedInput:
    """Return the parts of what was given for one date.

    A text is a file, a folder (its GeoTIFF and JPEG 2000 files, sorted by name, make a mosaic), a pattern such as
    `tiles/*.tif`, an address (`https://`, `s3://`, `gs://`, `az://`), a path of GDAL's own file systems (`/vsicurl/`,
    `/vsizip/`, `/vsimem/`, ...), a name with a driver's prefix (`GTIFF_DIR:2:a.tif`), or several of these with commas
    in between.

    Raises:
        InputError: nothing was given, a folder or pattern holds no image, or an address is of an unknown kind.
    """
    several = [image] if isinstance(image, str | Path) else list(image)
    shown = ",".join(_hide_credentials(_as_text(one)) for one in several)
    parts = [part for one in several for text in _split_list(_as_text(one)) for part in _resolve_text(text)]
    if not parts:
        raise InputError(shown or "(nothing)", "is no image: nothing was given", "Give one image, or several")
    return ResolvedInput(tuple(parts), shown)


def is_remote_name(gdal_name: str) -> bool:
    """Tell whether GDAL reads a name over the network, also through an archive (`/vsizip//vsicurl/...`)."""
    return any(system in gdal_name for system in NETWORK_PREFIXES)


def is_local_name(gdal_name: str) -> bool:
    """Tell whether a name is that of a file which the system itself can read."""
    return not gdal_name.startswith("/vsi") and not (_GDAL_PREFIX.match(gdal_name) and not Path(gdal_name).exists())


def network_timeouts(resolved: ResolvedInput) -> AbstractContextManager[Any]:
    """Return what a remote image is opened and read within, so that a dead address ends in an error; see
    `NETWORK_TIMEOUTS`.
    """
    if not resolved.is_remote:
        return nullcontext()
    settings: AbstractContextManager[Any] = rasterio.Env(
        **{key: value for key, value in NETWORK_TIMEOUTS.items() if key not in os.environ}
    )
    return settings


def _as_text(one: str | Path) -> str:
    """Return the text of a name, with the slash that `pathlib` took from an address."""
    text = os.fspath(one).strip()
    return re.sub(rf"\b({'|'.join(URL_SCHEMES)}):/(?=[^/])", r"\1://", text) if isinstance(one, Path) else text


def _hide_credentials(text: str) -> str:
    return _CREDENTIALS.sub(lambda found: "//" if found[0].startswith("//") else "", text) if "://" in text else text


def _split_list(text: str) -> list[str]:
    """Split at commas; an existing file may have some in its name, and an address in its query."""
    if "," not in text or Path(text).exists():
        return [text] if text else []
    between = r",(?=/vsi|[a-z0-9]+://)" if "://" in text or text.startswith("/vsi") else ","
    return [part.strip() for part in re.split(between, text) if part.strip()]


def _resolve_text(text: str) -> list[str]:
    """Return what one text stands for."""
    scheme, found, rest = text.partition("://")
    if found and not text.startswith("/vsi"):
        if scheme.lower() not in URL_SCHEMES:
            known = ", ".join(f"{name}://" for name in URL_SCHEMES)
            raise InputError(
                _hide_credentials(text), f"unknown kind of address {scheme}://", f"Give one of {known}, or /vsi..."
            )
        return [URL_SCHEMES[scheme.lower()] + rest.lstrip("/" if scheme.lower() == "file" else "")]
    if not is_local_name(text):
        return [text]
    path = Path(text)
    if path.is_dir():
        return _list_folder(path)
    if any(sign in text for sign in "*?[") and not path.exists():
        return _expand_pattern(path)
    return [text]


def _list_folder(folder: Path) -> list[str]:
    tiles = [
        path for path in folder.iterdir() if path.suffix.lower() in RASTER_SUFFIXES and not path.name.startswith(".")
    ]
    if not tiles:
        wanted = ", ".join(RASTER_SUFFIXES)
        raise InputError(folder, f"is a folder without images ({wanted})", "Give an image, or a folder of tiles")
    return [str(path) for path in sorted(tiles)]


def _expand_pattern(pattern: Path) -> list[str]:
    anchor = Path(pattern.anchor) if pattern.is_absolute() else Path()
    fitting = anchor.glob(str(pattern.relative_to(anchor)))
    found = sorted(path for path in fitting if path.is_file() and not path.name.startswith("."))
    if not found:
        raise InputError(pattern, "no file fits this pattern", "Check the spelling and the folder")
    return [str(path) for path in found]
