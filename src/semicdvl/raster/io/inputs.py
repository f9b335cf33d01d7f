"""Resolve what a user names as an image (files, folders, patterns, addresses, lists) into the names that GDAL opens.

Addresses stay strings from the command line to GDAL. As a `pathlib.Path`, `https://host/a.tif` loses a slash, which is
put back here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from semicdvl.errors import InputError
from semicdvl.raster.file_access import ACCESS_SETTINGS, LOCAL_SETTINGS
from semicdvl.reading.folder_kinds import DATA_SET, FOLDER, describe_folder
from semicdvl.reading.regular_files import exists, require_file_or_folder

ImageInput = str | Path | Sequence[str | Path]
"""One image, or several files that make a mosaic: see `resolve_input`."""

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2")
"""Suffixes of the files of a folder that make its mosaic."""
URL_SCHEMES = {
    "http": "/vsicurl/http://",
    "https": "/vsicurl/https://",
    "ftp": "/vsicurl/ftp://",
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "az": "/vsiaz/",
    "file": "/",
}
"""Scheme of an address -> prefix of GDAL's virtual file system."""
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
"""GDAL settings for remote images: 15 s for a connection, 30 s without a byte. GDAL's own defaults wait for ever.
A variable of the same name in the environment takes precedence."""
_CREDENTIALS = re.compile(r"//[^/@]*@|\?.*$")
_GDAL_PREFIX = re.compile(r"[A-Z][A-Z0-9_]+:")


@dataclass(frozen=True)
class ResolvedInput:
    """An image as GDAL opens it.

    Attributes:
        gdal_names: what GDAL opens, one name per file; later files lie over earlier ones.
        display_name: what the user gave, without the credentials in an address (passwords, signatures).
        allow_outside: whether a VRT may have sources outside of its folder (`raster.file_access`).
    """

    gdal_names: tuple[str, ...]
    display_name: str
    allow_outside: bool = False

    def __str__(self) -> str:
        """Return the display name."""
        return self.display_name

    @property
    def lasting_name(self) -> str:
        """The display name with absolute paths: a record that is read in another folder finds the same files."""
        parts = (
            part if "://" in part or not is_local_name(part) else str(Path(part).absolute())
            for part in _split_list(self.display_name)
        )
        return ",".join(parts)

    @property
    def is_remote(self) -> bool:
        """Whether a part of it is read over the network."""
        return any(is_remote_name(name) for name in self.gdal_names)


def resolve_input(image: ImageInput, *, allow_outside: bool = False) -> ResolvedInput:
    """Resolve what was given for one image into the names that GDAL opens.

    A string is a file, a folder (its GeoTIFF and JPEG 2000 files, sorted by name, make a mosaic), a pattern such as
    `tiles/*.tif`, an address (`https://`, `s3://`, `gs://`, `az://`), a path of GDAL's virtual file systems
    (`/vsicurl/`, `/vsizip/`, `/vsimem/`, ...), a name with a driver's prefix (`GTIFF_DIR:2:a.tif`), or several of these
    separated by commas.

    Raises:
        InputError: nothing was given, a folder or pattern holds no image, or the scheme of an address is unknown.
    """
    several = [image] if isinstance(image, str | Path) else list(image)
    display_name = ",".join(_hide_credentials(_to_text(one)) for one in several)
    names = [name for one in several for text in _split_list(_to_text(one)) for name in _resolve_text(text)]
    if not names:
        raise InputError(display_name or "(nothing)", "No image was given", "Give the path of an image, or of several")
    return ResolvedInput(tuple(names), display_name, allow_outside)


def is_remote_name(gdal_name: str) -> bool:
    """Tell whether GDAL reads a name over the network, also through an archive (`/vsizip//vsicurl/...`)."""
    return any(prefix in gdal_name for prefix in NETWORK_PREFIXES)


def is_local_name(gdal_name: str) -> bool:
    """Tell whether a name is that of a file on the local file system."""
    return not gdal_name.startswith("/vsi") and not (_GDAL_PREFIX.match(gdal_name) and not exists(gdal_name))


def network_access(resolved: ResolvedInput) -> AbstractContextManager[Any]:
    """Return the context in which an image is opened and read.

    For a remote one it sets `NETWORK_TIMEOUTS`, so that a dead address ends in an error; for a local one there is no
    network.
    """
    given = {key: value for key, value in NETWORK_TIMEOUTS.items() if key not in os.environ}
    settings: AbstractContextManager[Any] = rasterio.Env(
        **(ACCESS_SETTINGS | given if resolved.is_remote else LOCAL_SETTINGS)
    )
    return settings


def _to_text(name: str | Path) -> str:
    """Return a name as a string, with the slash that `pathlib` took from an address."""
    text = os.fspath(name).strip()
    return re.sub(rf"\b({'|'.join(URL_SCHEMES)}):/(?=[^/])", r"\1://", text) if isinstance(name, Path) else text


def _hide_credentials(text: str) -> str:
    if "://" not in text:
        return text
    return _CREDENTIALS.sub(lambda match: "//" if match[0].startswith("//") else "", text)


def _split_list(text: str) -> list[str]:
    """Split a list at its commas; the name of an existing file may contain some, and so may the query of an address."""
    if "," not in text or exists(text):
        return [text] if text else []
    separator = r",(?=/vsi|[a-z0-9]+://)" if "://" in text or text.startswith("/vsi") else ","
    return [part.strip() for part in re.split(separator, text) if part.strip()]


def _resolve_text(text: str) -> list[str]:
    """Return the names that GDAL opens for one file, folder, pattern or address."""
    scheme, separator, rest = text.partition("://")
    if separator and not text.startswith("/vsi"):
        return [_resolve_address(text, scheme.lower(), rest)]
    if not is_local_name(text):
        return [text]
    path = Path(text)
    require_file_or_folder(path, remedy="Give an image file, or a folder that contains the tiles of one")
    if path.is_dir():
        return _list_folder(path)
    if any(wildcard in text for wildcard in "*?[") and not path.exists():
        return _expand_pattern(path)
    return [text]


def _resolve_address(text: str, scheme: str, rest: str) -> str:
    if scheme not in URL_SCHEMES:
        known = ", ".join(f"{name}://" for name in URL_SCHEMES)
        remedy = f"Use {known}, or a path of GDAL's virtual file systems (/vsi...)"
        raise InputError(_hide_credentials(text), f"The address scheme {scheme}:// is unknown", remedy)
    return URL_SCHEMES[scheme] + rest.lstrip("/" if scheme == "file" else "")


def _list_folder(folder: Path) -> list[str]:
    """Return the rasters of a folder, sorted by name."""
    rasters = [
        path for path in folder.iterdir() if path.suffix.lower() in RASTER_SUFFIXES and not path.name.startswith(".")
    ]
    kind = describe_folder(folder)
    if kind not in (FOLDER, DATA_SET) or (kind == DATA_SET and not rasters):
        raise InputError(folder, f"This is {kind}, not an image", "Give an image file, or a folder of the tiles of one")
    if not rasters:
        suffixes = ", ".join(RASTER_SUFFIXES)
        problem = f"The folder contains no raster ({suffixes})"
        raise InputError(folder, problem, "Give an image file, or a folder that contains the tiles of one")
    return [str(path) for path in sorted(rasters)]


def _expand_pattern(pattern: Path) -> list[str]:
    """Return the files that match a pattern, sorted by name."""
    anchor = Path(pattern.anchor) if pattern.is_absolute() else Path()
    matches = anchor.glob(str(pattern.relative_to(anchor)))
    try:
        files = sorted(path for path in matches if path.is_file() and not path.name.startswith("."))
    except ValueError as error:  # `**` beside other letters, before Python 3.13
        raise InputError(pattern, f"This is no pattern of files ({error})", "Use one * for any letters") from error
    if not files:
        raise InputError(pattern, "No file matches this pattern", "Check the spelling and the folder")
    return [str(path) for path in files]
