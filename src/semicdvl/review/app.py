"""The application: routes, and what becomes of errors."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from rasterio.errors import NotGeoreferencedWarning

from semicdvl.data.readers.folder import find_date_folders
from semicdvl.detection.output_folder import is_detection
from semicdvl.errors import ConfigError, DataError, InputError, OutputError, SemicdvlError
from semicdvl.reading.regular_files import resolve_links
from semicdvl.review.folder import find_pairs
from semicdvl.review.geometry import BadShape
from semicdvl.review.labels.session import BadMask, LabelSession, NoSuchPatch
from semicdvl.review.labels.sources import FolderPatches, MapPatches
from semicdvl.review.routes import changes, estimates, labels, page, pairs
from semicdvl.review.schemas import Problem
from semicdvl.review.security import Guard
from semicdvl.review.session import NoSuchPair, Sessions
from semicdvl.review.settings import ServeConfig
from semicdvl.review.store import Conflict, NoSuchChange
from semicdvl.version import __version__

log = logging.getLogger("semicdvl.review")
STATUS_OF: dict[type[Exception], int] = {
    NoSuchPair: 404,
    NoSuchChange: 404,
    NoSuchPatch: 404,
    Conflict: 409,
    BadShape: 422,
    BadMask: 422,
    DataError: 422,
    ConfigError: 409,
    InputError: 422,
    OutputError: 507,
    SemicdvlError: 500,
}
"""Error -> status of the answer; the first class that fits."""
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The request cannot be read, or names another server",
        401: "The token is missing or wrong",
        403: "The request comes from another site",
        404: "There is no such pair, change, place or tile",
        409: "Somebody else wrote it in the meantime",
        413: "The request is too large",
        422: "The request, or a file of the result, cannot be used",
        507: "The folder cannot be written",
    }.items()
}
DESCRIPTION = """Review a change map, or label patches. The page uses nothing else.

Send the token that `semicdvl serve` prints as `Authorization: Bearer TOKEN`. Every change has a version; a request
that writes names the version that it saw, and is refused (409) where somebody else wrote in between."""


@dataclass(frozen=True)
class ReviewServer:
    """A review server.

    Attributes:
        app: the ASGI application.
        sessions: the pairs that it serves.
    """

    app: Guard
    sessions: Sessions


def create_review_app(folder: str | Path, *, config: ServeConfig | None = None) -> Guard:
    """Return the review server of a folder as an ASGI application, to be run by uvicorn or tested; see `build_server`.

    Raises:
        InputError, DataError: the folder holds nothing that can be served.
    """
    return build_server(folder, config=config).app


def build_server(folder: str | Path, *, config: ServeConfig | None = None) -> ReviewServer:
    """Return the review server of a folder.

    Args:
        folder: a result of `detect`, a folder of such results, or with `label` a folder of image pairs.
        config: the settings; None: the defaults, with a token of its own.

    Raises:
        InputError, DataError: the folder holds nothing that can be served.
    """
    root, config = resolve_links(Path(folder)), config or ServeConfig()
    if not root.is_dir():
        raise InputError(folder, "is not a folder", "Give a folder that `semicdvl detect` wrote")
    # For good: threads that answer requests, and libraries in them, change the filters of the process at once.
    warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)
    is_dataset = config.label and find_date_folders(root) is not None and not is_detection(root)
    sessions = Sessions({} if is_dataset else find_pairs(root), config)
    labels_too = config.label or len(sessions.pairs) == 1
    labelling = _prepare_labelling(root, sessions, is_dataset=is_dataset) if labels_too else None

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        yield
        sessions.close()

    app = FastAPI(
        title="semicdvl review",
        version=__version__,
        description=DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # the pages of FastAPI fetch their scripts from the network
        redoc_url=None,
        lifespan=live,
        responses=RESPONSES,
    )
    for kind, status in STATUS_OF.items():
        app.add_exception_handler(kind, _make_handler(status))
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(Exception, _answer_failure)
    app.state.folder, app.state.sessions, app.state.open_labelling = str(root), sessions, labelling
    for routes in (pairs, changes, estimates, *((labels,) if labelling is not None else ()), page):
        app.include_router(routes.router)
    return ReviewServer(Guard(app, config=config), sessions)


def _prepare_labelling(root: Path, sessions: Sessions, *, is_dataset: bool) -> Callable[[], LabelSession]:
    """Return what opens the labelling at the first request: of a result, patches may have to be chosen first.

    Raises:
        InputError, DataError: the folder of pairs cannot be used, or there are several results.
    """
    if is_dataset:
        source = FolderPatches(root)
        ready = LabelSession(source, session=None, config=sessions.config)
        return lambda: ready
    if len(sessions.pairs) != 1:
        names = ", ".join(list(sessions.pairs)[:4])
        raise InputError(root, f"holds several results ({names})", "Name the one to label")
    name, lock = next(iter(sessions.pairs)), threading.Lock()
    opened: list[LabelSession] = []

    def find() -> LabelSession:
        with lock:
            if not opened:
                with sessions.use(name) as session:
                    opened.append(LabelSession(MapPatches(session), session=session, config=sessions.config))
            return opened[0]

    return find


def _make_handler(status: int) -> Callable[[Request, Exception], JSONResponse]:
    """Return what answers an error with a status and its message."""

    def answer(_: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=status)

    return answer


def _answer_invalid(_: Request, error: Exception) -> JSONResponse:
    """Say which field of a request is wrong; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    found = [
        {"loc": [str(part)[:100] for part in one["loc"]], "msg": str(one["msg"])[:300], "type": one["type"]}
        for one in error.errors()[:20]
    ]
    return JSONResponse({"detail": found}, status_code=422)


def _answer_failure(_: Request, error: Exception) -> JSONResponse:
    """Answer a mistake of this program; the server goes on."""
    log.error("a request failed", exc_info=error)
    return JSONResponse({"detail": f"An error in this program ({type(error).__name__})."}, status_code=500)
