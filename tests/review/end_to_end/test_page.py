"""The page in a browser: walk, decide, redraw, label; what is shown is what is stored."""

from __future__ import annotations

import dataclasses
import importlib.resources
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import shapely
from PIL import Image
from tests.support.review_scene import CONFIG, SIDE, SQUARES, write_result

from semicdvl.review.store import ReviewStore

LABEL = dataclasses.replace(CONFIG, label=True)


def read_states(out) -> dict[int, str]:
    store = ReviewStore(out / "review.sqlite")
    states = {change.id: change.state for change in store.list_changes()}
    store.close()
    return states


def place(window, x: float, y: float) -> tuple[float, float]:
    """Return where a pixel of the result is on the screen."""
    found = window.page.evaluate(
        """([x, y]) => {
            const { map } = document.querySelector('.maps').review;
            const [left, top] = map.main.getPixelFromCoordinate([x, -y]);
            const box = map.main.getTargetElement().getBoundingClientRect();
            return [box.left + left, box.top + top];
        }""",
        [x, y],
    )
    return found[0], found[1]


def click(window, *corners: tuple[float, float], last: str = "click") -> None:
    for at, (x, y) in enumerate(corners):
        left, top = place(window, x, y)
        (window.page.mouse.dblclick if last == "dblclick" and at == len(corners) - 1 else window.page.mouse.click)(
            left, top
        )


def test_a_map_is_reviewed(open_page, out) -> None:
    window = open_page(out)
    page = window.page
    assert page.locator(".progress strong").text_content() == "1 of 12"
    window.press("v")
    assert page.locator('[data-mode="swipe"][aria-pressed="true"]').count() == 1
    before = page.locator(".swipe-handle").get_attribute("aria-valuenow")
    window.press("]", "]")
    assert int(page.locator(".swipe-handle").get_attribute("aria-valuenow")) == int(before) + 10
    window.press("f")
    assert page.locator(".date-name").text_content() == "before"
    window.press("f")
    assert page.locator(".date-name").text_content() == "after"

    window.press("a", "a", "a", "r", "r", "u")
    assert sorted(read_states(out).values()).count("accepted") == 3
    assert sorted(read_states(out).values()).count("rejected") == 1
    assert page.locator(".progress").text_content().endswith("4 of 12 decided")

    window.press("n")
    page.wait_for_selector(".edit-bar")
    window.press("w")  # keys are for the drawing now
    centre = page.evaluate("() => document.querySelector('.maps').review.map.view.getCenter()")
    x, y = centre[0], -centre[1]
    click(window, (x - 15, y - 15), (x + 15, y - 15), (x + 15, y + 15), (x - 15, y + 15))
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#toast')?.textContent === 'Drawn and accepted.'")
    drawn = [one for one in _list(out) if one.source == "drawn"]
    assert len(drawn) == 1 and drawn[0].area == pytest.approx(900 * 0.25, rel=0.05)

    assert window.shown == "Change 13"
    window.press("x")
    click(window, (x - 4, y - 25), (x - 4, y + 25))
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#toast')?.textContent === 'Cut in 2 parts.'")
    parts = [one for one in _list(out) if one.source == "split"]
    assert len(parts) == 2 and sum(part.area for part in parts) == pytest.approx(drawn[0].area)

    stored = read_states(out)
    again = open_page(out)
    assert again.page.locator(".progress").text_content().endswith("6 of 14 decided")
    ask = "() => document.querySelector('.maps').review.map.changes.getFeatures().map((f) => f.get('change'))"
    shown = {change["id"]: change["state"] for change in again.page.evaluate(ask)}
    assert shown == stored


def _list(out):
    store = ReviewStore(out / "review.sqlite")
    changes = store.list_changes()
    store.close()
    return changes


def test_an_outline_is_moved_by_keys_alone(open_page, out) -> None:
    window = open_page(out)
    number = int(window.shown.split()[1])
    window.press("e", "Tab")
    for _ in range(4):
        window.page.keyboard.press("Shift+ArrowLeft")
    window.page.keyboard.press("Enter")
    window.page.wait_for_function("() => document.querySelector('#toast')?.textContent === 'Outline kept.'")
    change = next(one for one in _list(out) if one.id == number)
    assert change.state == "accepted" and change.edited
    before, after = (
        {tuple(at) for at in np.round(shapely.get_coordinates(shape), 3).tolist()}
        for shape in (change.original, change.geometry)
    )
    (old,), (new,) = before - after, after - before
    assert (new[0] - old[0], new[1] - old[1]) == (-10.0, 0.0)  # four times 5 px of 0.5 m to the left
    assert abs(change.area - SIDE**2 * 0.25) == pytest.approx(20 * SIDE / 2 * 0.25)


def test_of_two_windows_on_one_change_one_is_told(open_page, out) -> None:
    first, second = open_page(out), open_page(out)
    assert first.shown == second.shown
    first.page.bring_to_front()
    first.press("a")
    second.page.bring_to_front()
    second.press("r")
    assert "was changed in another window in the meantime" in second.toast()
    assert list(read_states(out).values()).count("accepted") == 1
    assert list(read_states(out).values()).count("rejected") == 0
    assert second.page.locator(".card .state").text_content() == "accepted"
    second.problems = [text for text in second.problems if "409" not in text]


def test_texts_are_shown_as_texts(open_page, out) -> None:
    window = open_page(out)
    evil = "<img src=x onerror=alert(1)>"
    window.press("c")
    window.page.keyboard.type(evil)
    window.page.keyboard.press("Escape")
    window.press("a", "ArrowLeft")
    assert window.page.locator("textarea").input_value() == evil
    assert window.page.locator("img[src=x]").count() == 0


def test_the_estimate_and_the_files_are_on_the_screen(open_page, out) -> None:
    window = open_page(out)
    window.page.locator("aside details select").first.select_option("random")
    window.press("Escape", *"aaaaaar")
    window.page.wait_for_function("() => document.querySelector('.sentence')?.textContent.startsWith('after 7 of 12')")
    assert re.search(r"precision 0\.\d\d-\d\.\d\d", window.page.locator(".sentence").text_content())
    window.press("p")
    window.page.wait_for_selector(".place")
    window.press("r", "r", "a")
    window.press("d")
    window.page.wait_for_selector(".out code")
    assert (out / "reviewed.gpkg").is_file()
    record = json.loads((out / "review.json").read_text())
    assert record["states"]["accepted"] == 6 and record["states"]["rejected"] == 1


@pytest.mark.parametrize(("kind", "dtype"), [("png", "uint8"), ("tif", "uint16")])
def test_other_images_are_shown_as_well(open_page, tmp_path, kind, dtype) -> None:
    window = open_page(write_result(tmp_path, kind=kind, dtype=dtype))
    window.page.mouse.move(500, 400)
    status = window.page.locator(".map-status").text_content()
    assert ("col, row" in status) == (kind == "png") and ("EPSG:32615" in status) == (kind == "tif")
    window.press("a")
    shot = np.array(Image.open(_shoot(window, tmp_path)).convert("L"))[200:700, 100:900]
    assert shot.std() > 15  # a picture, neither black nor white


def _shoot(window, folder):
    window.page.wait_for_load_state("networkidle")  # all tiles are there
    window.page.wait_for_timeout(300)  # and drawn
    window.page.screenshot(path=folder / "shot.png")
    return folder / "shot.png"


def test_many_pairs_are_a_list(open_page, scene, tmp_path) -> None:
    root = tmp_path / "results"
    for name in ("north", "south"):
        shutil.copytree(scene, root / name)
    window = open_page(root, wait=".pair")
    assert window.page.locator(".pair strong").all_text_contents() == ["north", "south"]
    window.page.locator("a.pair").first.click()
    window.page.wait_for_selector(".card strong")
    window.press("a")
    window.page.locator(".back").click()
    window.page.wait_for_selector(".pair")
    assert "1 of 12 reviewed" in window.page.locator("a.pair").first.text_content()


def test_a_label_is_what_was_painted(open_page, out) -> None:
    window = open_page(out, LABEL, wait=".toolbox")
    page = window.page
    page.wait_for_function(
        "() => document.getElementById('app').labelling.patch() && !document.getElementById('app').labelling.busy()"
    )
    window.press("c", "2")
    box = page.locator("canvas.paint").nth(1).bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    window.press("1", "ArrowLeft", "ArrowUp", " ")
    window.press("q", "3")
    for across, down in ((0.1, 0.1), (0.2, 0.1), (0.2, 0.2)):
        page.mouse.click(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
    window.press("Enter")
    painted = np.array(page.evaluate("() => Array.from(document.getElementById('app').labelling.mask())"), np.uint8)
    assert set(painted.tolist()) == {0, 128, 255}
    window.press("s")
    page.wait_for_function("() => document.querySelector('.next code')")
    stored = np.array(Image.open(out / "labels" / "label" / "r00000_c00000.png"))
    assert (stored == painted.reshape(256, 256)).all()
    assert page.locator(".next code").first.text_content().startswith("semicdvl train ")


@pytest.mark.parametrize("config", [CONFIG, LABEL], ids=["review", "label"])
def test_nothing_serious_bars_anybody(open_page, out, config) -> None:
    """The rules of axe-core for the page as it is, and on a tablet."""
    window = open_page(out, config, wait=".actions")
    source = importlib.resources.files("axe_playwright_python").joinpath("axe.min.js").read_text()
    for size in ({"width": 1280, "height": 800}, {"width": 820, "height": 1180}):
        window.page.set_viewport_size(size)
        window.page.evaluate(source + ";0")
        found = window.page.evaluate("() => axe.run()")
        serious = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"][:100] for node in one["nodes"][:3]]) for one in serious] == []
        wide = window.page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= size["width"]


SERVER = """
import sys
from pathlib import Path
import uvicorn
import semicdvl as cd
app = cd.create_review_app(Path(sys.argv[1]), config=cd.ServeConfig(token=sys.argv[2]))
config = uvicorn.Config(app, port=0, log_level="error")
server = uvicorn.Server(config)
startup = server.startup
async def tell(*args, **kwargs):
    await startup(*args, **kwargs)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
server.startup = tell
server.run()
"""


@pytest.mark.slow
def test_a_killed_server_loses_nothing(out) -> None:
    command = [sys.executable, "-c", SERVER, str(out), CONFIG.token]
    for number, state in ((1, "accepted"), (2, "rejected")):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/api/pairs/out/changes/{number}/decision",
                data=json.dumps({"version": 1, "state": state}).encode(),
                headers={"Authorization": f"Bearer {CONFIG.token}", "Content-Type": "application/json"},
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status == 200
            os.kill(process.pid, signal.SIGKILL)
    states = read_states(out)
    assert (states[1], states[2], states[3]) == ("accepted", "rejected", "open")
    assert len(states) == len(SQUARES)
