"""A headless browser and a review server in this process, for tests of the page."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

import semicdvl as cd
from semicdvl.review.server import format_address

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
KNOWN_PLACES = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")


def find_browser() -> str | None:
    """Return the system's Chromium; Playwright's own is never downloaded."""
    return next((path for name in KNOWN_PLACES if (path := shutil.which(name))), None)


@contextlib.contextmanager
def serve_in_thread(folder: Path, config: cd.ServeConfig) -> Iterator[str]:
    """Serve a folder and yield the address with its token."""
    app = cd.create_review_app(folder, config=config)
    settings = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", ws="none", timeout_graceful_shutdown=1)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield format_address(config, port)
    finally:
        server.should_exit = True
        thread.join(10)


class Window:
    """A page and what went wrong on it."""

    def __init__(self, context: Any, address: str) -> None:
        """Open an address."""
        self.page = context.new_page()
        self.page.set_default_timeout(20_000)
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        self.page.goto(address)

    def press(self, *keys: str) -> None:
        """Press keys, each when the one before has been answered."""
        for key in keys:
            self.page.keyboard.press(key)
            self.settle()

    def settle(self) -> None:
        """Wait until everything that was asked for is answered."""
        self.page.wait_for_function(
            "() => document.querySelector('.maps')?.review?.idle() ?? !document.querySelector('#app').labelling?.busy()"
        )

    def toast(self) -> str:
        """Return what the page last said."""
        return str(self.page.locator("#toast").text_content())

    @property
    def shown(self) -> str:
        """The change on the card."""
        return str(self.page.locator(".card strong").text_content())
