"""Run the review server, and tell the user where it is."""

from __future__ import annotations

import socket
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import uvicorn

from semicdvl.errors import ConfigError
from semicdvl.review.app import build_server
from semicdvl.review.settings import DEFAULT_PORT, ServeConfig

MAX_CONCURRENT_REQUESTS = 64
"""Further ones are answered with 503 at once."""


def serve_folder(
    folder: str | Path,
    *,
    config: ServeConfig | None = None,
    open_browser: bool = False,
    tell: Callable[[str], None] = print,
) -> None:
    """Serve a folder until the process is interrupted.

    Args:
        folder: see `app.build_server`.
        config: the settings; None: the defaults.
        open_browser: open the page in the browser of this machine.
        tell: is handed the lines for the user.

    Raises:
        InputError: the folder holds nothing that can be served.
        ConfigError: the address or the port cannot be listened at.
    """
    config = config or ServeConfig()
    server = build_server(folder, config=config)
    with _listen(config) as listener:
        port = int(listener.getsockname()[1])
        address = format_address(config, port)
        tell(f"Review page of {folder}:\n  {address}")
        if not config.is_local:
            tell(
                f"--host {config.host} lets every computer of the network ask. Whoever has this address, with its "
                "token, can see the images and change the review; the connection is not encrypted."
            )
        tell("Stop with Ctrl-C; every decision is on disk already.")
        settings = uvicorn.Config(
            server.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=MAX_CONCURRENT_REQUESTS,
            timeout_graceful_shutdown=3,
            proxy_headers=False,
            ws="none",
        )
        # While the user opens the address: the first request then finds the images open.
        threading.Thread(target=server.sessions.open_only_pair, daemon=True).start()
        if open_browser:
            webbrowser.open(address)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(settings).run(sockets=[listener])


def format_address(config: ServeConfig, port: int) -> str:
    """Return the address that a user opens."""
    host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host
    named = f"[{host}]" if ":" in host else host
    return f"http://{named}:{port}/?token={config.token}"


def _listen(config: ServeConfig) -> socket.socket:
    """Return a socket that listens; where the usual port is taken, at any that is free.

    Raises:
        ConfigError: the address is none of this machine, or the port is taken.
    """
    try:
        return _bind(config)
    except OSError as error:
        if config.port == DEFAULT_PORT:
            with suppress(OSError):
                return _bind(replace(config, port=0))
        raise ConfigError(
            f"Cannot listen at {config.host}, port {config.port} ({error.strerror or error}). "
            "Give another --port, or --port 0 for any that is free."
        ) from error


def _bind(config: ServeConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener
