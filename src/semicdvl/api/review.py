"""Serve the review page of a result: look, accept, reject, redraw, label."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from semicdvl.errors import MissingExtraError

if TYPE_CHECKING:
    from semicdvl.review.security import Guard
    from semicdvl.review.settings import ServeConfig


def serve(
    folder: str | Path,
    *,
    config: ServeConfig | None = None,
    open_browser: bool = False,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve the review page of a result until the process is interrupted.

    Args:
        folder: a result of `detect`, a folder of such results, or with `config.label` a folder of image pairs.
        config: address, port, reviewer, ...: see `ServeConfig`.
        open_browser: open the page in the browser of this machine.
        tell: is handed the lines for the user, the address with its token first.

    Raises:
        InputError: the folder holds nothing that can be served.
        ConfigError: the address or the port cannot be listened at.
        MissingExtraError: semicdvl[review] is not installed.

    Examples:
        >>> import semicdvl as cd
        >>> cd.serve("out", config=cd.ServeConfig(port=9000))                   # doctest: +SKIP
    """
    _require_packages()
    from semicdvl.review.server import serve_folder

    serve_folder(folder, config=config, open_browser=open_browser, tell=tell)


def create_review_app(folder: str | Path, *, config: ServeConfig | None = None) -> Guard:
    """Return the review server as an ASGI application, to run it in a server of your own.

    Args:
        folder: see `serve`.
        config: see `ServeConfig`; its token is what requests must carry.

    Returns:
        Guard: the application behind the check of the token; any ASGI server runs it.

    Raises:
        InputError: the folder holds nothing that can be served.
        MissingExtraError: semicdvl[review] is not installed.

    Examples:
        >>> import semicdvl as cd
        >>> saved = cd.detect_to_folder(before_tif, after_tif, out, detector=cd.create_detector("cva"), progress=False)
        >>> app = cd.create_review_app(saved.folder, config=cd.ServeConfig())
        >>> callable(app)
        True
    """
    _require_packages()
    from semicdvl.review.app import create_review_app as create

    return create(folder, config=config)


def _require_packages() -> None:
    """Refuse to begin without the packages of the extra.

    Raises:
        MissingExtraError: one is missing.
    """
    missing = [name for name in ("fastapi", "uvicorn", "rio_tiler") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"The review page needs {', '.join(missing)}. Install semicdvl[review].")
