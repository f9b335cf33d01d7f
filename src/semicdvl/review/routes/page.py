"""The built page: a handful of files that are read once; no path is made from a request."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Response

PAGE = Path(__file__).parents[1] / "page"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


router = APIRouter(include_in_schema=False)


@lru_cache(maxsize=1)
def read_files() -> dict[str, bytes]:
    """Return the files of the page by name."""
    return {path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.suffix in MEDIA_TYPES}


@router.get("/{name}")
def get_file(name: str) -> Response:
    """Return a file of the page."""
    content = read_files().get(name)
    if content is None:
        return Response("There is no such page.", status_code=404, media_type="text/plain")
    return Response(content, media_type=MEDIA_TYPES[Path(name).suffix], headers={"Cache-Control": "no-cache"})


@router.get("/")
def get_index() -> Response:
    """Return the page."""
    return get_file("index.html")
