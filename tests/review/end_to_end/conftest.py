"""One browser for all tests of the page; without one they are skipped."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.review_browser import FLAGS, Window, find_browser, serve_in_thread
from tests.support.review_scene import CONFIG

SIZE = {"width": 1280, "height": 800}


@pytest.fixture(scope="session")
def context(tmp_path_factory):
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: semicdvl[dev]")
    browser = find_browser()
    if browser is None:
        pytest.skip("no Chromium is installed (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("browser"), executable_path=browser, args=FLAGS, viewport=SIZE
        )
        yield opened
        opened.close()


@pytest.fixture
def open_page(context) -> Iterator[Callable[..., Window]]:
    """Return what serves a folder and opens its page; at the end there must have been no error on any page."""
    import contextlib

    windows: list[Window] = []
    with contextlib.ExitStack() as held:
        addresses: dict[Path, str] = {}

        def open_window(folder: Path, config=CONFIG, *, path: str = "", wait: str = ".card strong") -> Window:
            if folder not in addresses:
                addresses[folder] = held.enter_context(serve_in_thread(folder, config))
            windows.append(Window(context, addresses[folder] + path))
            windows[-1].page.wait_for_selector(wait)
            windows[-1].settle()
            return windows[-1]

        yield open_window
        problems = [problem for window in windows for problem in window.problems]
        for window in windows:
            window.page.close()
    assert problems == []
