"""What happens between the actions: the server goes away, a page is loaded again, a patch left, a link opened."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from tests.support.review_scene import CONFIG
from tests.support.synthetic_rasters import at

from semicdvl.review.store import ReviewStore

LABEL = dataclasses.replace(CONFIG, label=True)
SEND_EDIT = """(body) => {
    const headers = { 'Content-Type': 'application/json' };
    return fetch('/api/pairs/out/changes/1', { method: 'PATCH', body, headers }).then((answer) => answer.status);
}"""
LABELLING = "document.getElementById('app').labelling"


def read_changes(out):
    store = ReviewStore(out / "review.sqlite")
    changes = {change.id: change for change in store.list_changes()}
    store.close()
    return changes


def go_away(window) -> None:
    """Let no request reach the server, as when it has ended."""
    window.page.route("**/api/**", lambda route: route.abort())


def come_back(window) -> None:
    window.page.unroute("**/api/**")
    window.page.wait_for_selector(".away", state="detached")
    window.settle()
    window.problems = [text for text in window.problems if "net::ERR_FAILED" not in text]


def test_what_is_typed_while_the_server_is_away_is_stored_when_it_is_back(open_page, out) -> None:
    window = open_page(out)
    page, number = window.page, int(window.shown.split()[1])
    go_away(window)
    window.press("c")
    page.keyboard.type("seen on the ground")
    page.keyboard.press("Escape")
    page.wait_for_selector(".away")
    assert "The server does not answer" in page.locator(".away").text_content()
    window.press("a")
    assert window.shown == f"Change {number}" and "Not stored" in window.toast()
    window.press("ArrowRight", "ArrowLeft")
    assert page.locator("textarea").input_value() == "seen on the ground"
    come_back(window)
    change = read_changes(out)[number]
    assert (change.comment, change.state) == ("seen on the ground", "open")
    window.press("a")
    assert read_changes(out)[number].state == "accepted"


def test_what_is_drawn_while_the_server_is_away_stays_until_it_is_stored(open_page, out) -> None:
    window = open_page(out)
    page = window.page
    window.press("n")
    for key in ("ArrowUp", " ", "ArrowRight", " ", "ArrowDown", " "):
        page.keyboard.press(key)
    go_away(window)
    page.keyboard.press("Enter")
    page.wait_for_selector(".away")
    assert page.locator(".edit-bar").count() == 1
    come_back(window)
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#toast')?.textContent === 'Drawn and accepted.'")
    assert [change.source for change in read_changes(out).values()].count("drawn") == 1
    assert page.locator(".edit-bar").count() == 0


def test_a_reload_shows_the_same_change_and_undo_still_works(open_page, out) -> None:
    window = open_page(out)
    first = window.shown
    window.press("a", "ArrowRight")
    shown = window.shown
    window.page.reload()
    window.page.wait_for_selector(".card strong")
    window.settle()
    assert window.shown == shown != first
    window.press("u")
    assert window.shown == first and window.toast() == "Undone: accepted."
    assert read_changes(out)[int(first.split()[1])].state == "open"


def test_a_link_leads_to_its_change(open_page, out) -> None:
    assert open_page(out, path="#/pair/out/7").shown == "Change 7"
    window = open_page(out, path="#/pair/out/777")
    assert window.toast() == "There is no change 777 any more."
    window = open_page(out, path="#/pair/%E0%A4%A/x")
    assert window.shown.startswith("Change ")


def test_the_training_set_is_made_with_one_key(open_page, out) -> None:
    window = open_page(out)
    window.press("t")
    assert "No change is accepted yet" in window.toast()
    window.problems = [text for text in window.problems if "422" not in text]
    window.press("a", "r", "t")
    commands = window.page.locator(".commands code").all_text_contents()
    assert [command.split()[1] for command in commands] == ["train", "detect", "serve"]
    assert (out / "reviewed-patches" / "train.toml").is_file()


def test_a_stepped_outline_is_made_simple(open_page, out) -> None:
    window = open_page(out, path="#/pair/out/1")
    corners = [(40, 30), (60, 30), (60, 50), (59, 50), (59, 49.5), (58, 49.5), (58, 50)]
    corners += [(40, 50), (40, 40.5), (40.5, 40.5), (40.5, 39.5), (40, 39.5)]
    ring = [list(at(366600, 4104200) @ corner) for corner in [*corners, corners[0]]]
    edit = {"version": 1, "geometry": {"type": "Polygon", "coordinates": [ring]}}
    sent = window.page.evaluate(SEND_EDIT, json.dumps(edit))
    assert sent == 200
    window.page.reload()
    window.page.wait_for_selector(".card strong")
    window.settle()
    window.press("e", "s")
    window.page.keyboard.press("Enter")
    window.page.wait_for_function("() => document.querySelector('#toast')?.textContent === 'Outline kept.'")
    change = read_changes(out)[1]
    assert len(change.geometry.geoms[0].exterior.coords) == 5 and abs(change.area - 100) < 1


def test_paint_that_is_not_stored_is_there_again(open_page, out) -> None:
    window = open_page(out, LABEL, wait=".toolbox")
    page = window.page
    page.wait_for_function(f"() => {LABELLING}.patch() && !{LABELLING}.busy()")
    window.press("c", "2", " ")
    painted = page.evaluate(f"() => Array.from({LABELLING}.mask())")
    assert 0 < np.sum(np.array(painted) == 255) < 400
    page.locator(".back").click()
    page.wait_for_function("() => location.hash.startsWith('#/pair/')")
    page.go_back()  # before the review is there
    page.wait_for_function("() => location.hash === ''")
    page.go_forward()
    page.wait_for_function("() => /^#.pair.out.[0-9]+$/.test(location.hash) && document.querySelector('.maps')")
    window.settle()
    page.go_back()
    page.wait_for_selector(".toolbox")
    page.wait_for_function(f"() => {LABELLING}.patch() && !{LABELLING}.busy()")
    assert page.evaluate(f"() => Array.from({LABELLING}.mask())") == painted
    assert "not stored yet" in page.locator(".card").text_content()
