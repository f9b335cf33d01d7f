"""Who is let in: the token, the names of the machine, the origin, sizes, and what cannot be reached at all."""

from __future__ import annotations

import dataclasses

import pytest
from starlette.testclient import TestClient
from tests.support.review_scene import CONFIG, TOKEN, open_client

import semicdvl as cd
from semicdvl.review.security import MAX_BODY_BYTES

BASE = "http://127.0.0.1:8765"
DECISION = {"version": 1, "state": "accepted"}


@pytest.fixture
def stranger(out):
    with TestClient(cd.create_review_app(out, config=CONFIG), base_url=BASE, follow_redirects=False) as opened:
        yield opened


@pytest.mark.parametrize("path", ["/", "/api/pairs", "/api/openapi.json", "/api/pairs/out/tiles/after/0/0/0", "/x"])
def test_nothing_is_told_without_the_token(stranger, path) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 401
    is_page = not path.startswith("/api/")
    assert answer.headers["content-type"] == ("text/plain; charset=utf-8" if is_page else "application/json")
    assert "Open the whole address that `semicdvl serve` printed" in answer.text
    assert stranger.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert stranger.get(path, headers={"Authorization": "Bearer é".encode()}).status_code == 401


def test_health_needs_no_token(stranger) -> None:
    assert stranger.get("/api/health").json()["status"] == "ok"


def test_the_address_hands_the_token_over_to_a_cookie(stranger) -> None:
    answer = stranger.get(f"/?token={TOKEN}&pair=out")
    assert answer.status_code == 303 and answer.headers["location"] == "/?pair=out"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert stranger.get("/").status_code == 200
    assert stranger.get(f"/%2fevil.example/?token={TOKEN}").headers["location"].startswith("/evil.example")
    assert stranger.get("/?token=wrong").status_code == 401


def test_a_change_needs_the_origin_of_this_server(stranger) -> None:
    stranger.get(f"/?token={TOKEN}")
    path = "/api/pairs/out/changes/1/decision"
    assert stranger.post(path, json=DECISION).status_code == 403
    foreign = {"Origin": "http://evil.example"}
    assert stranger.post(path, json=DECISION, headers=foreign).status_code == 403
    assert stranger.get("/api/pairs", headers=foreign).status_code == 403
    assert stranger.post(path, json=DECISION, headers={"Origin": "null"}).status_code == 403
    assert stranger.post(path, json=DECISION, headers={"Origin": BASE}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "10.0.0.7:8765", ""])
def test_a_rebound_name_is_refused(client, host) -> None:
    assert client.get("/api/pairs", headers={"Host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1:8765", "[::1]:8765"])
def test_the_names_of_this_machine_are_known(client, host) -> None:
    assert client.get("/api/pairs", headers={"Host": host}).status_code == 200


def test_a_server_for_the_network_knows_numbers_but_no_foreign_names(out) -> None:
    config = dataclasses.replace(CONFIG, host="0.0.0.0")
    assert not config.is_local
    with open_client(out, config) as client:
        assert client.get("/api/pairs", headers={"Host": "192.168.1.20:8765"}).status_code == 200
        assert client.get("/api/pairs", headers={"Host": "evil.example:8765"}).status_code == 400


def test_large_requests_are_refused(client) -> None:
    body = b'{"version": 1, "comment": "' + b"x" * MAX_BODY_BYTES + b'"}'
    assert client.post("/api/pairs/out/changes/1/decision", content=body).status_code == 413

    def trickle():
        for _ in range(MAX_BODY_BYTES // 65536 + 2):
            yield b"x" * 65536

    assert client.post("/api/pairs/out/changes/1/decision", content=trickle()).status_code in (400, 413)
    assert client.get("/api/pairs").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "/run.json", "/review.sqlite", "/vsicurl/x",
        "/api/pairs/../../etc", "/api/pairs/%2e%2e", "/api/pairs/%2Fetc%2Fpasswd", "/api/pairs/..%2fout",
        "/api/pairs/out%00", "/api/pairs/out/tiles/%2e%2e%2frun.json/0/0/0", "/api/pairs/out/tiles//vsimem/x/0/0/0",
        "/api/pairs/out/thumbnails/..%2f..%2fbefore",
    ],
)  # fmt: skip
def test_no_path_leads_out(client, path) -> None:
    answer = client.get(path)
    assert answer.status_code in (404, 422), answer.text
    assert b"root:" not in answer.content


def test_every_answer_carries_the_headers(client, stranger) -> None:
    for answer in (client.get("/"), client.get("/api/pairs"), client.get("/nothing"), stranger.get("/")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert stranger.get("/docs").status_code == 401 and client.get("/docs").status_code == 404


def test_the_token_is_in_no_text_of_the_settings() -> None:
    assert TOKEN not in repr(CONFIG)


@pytest.mark.parametrize("bad", [{"port": 70000}, {"token": "short"}, {"reviewer": ""}, {"prompts": "boats"}])
def test_impossible_settings_are_refused(bad) -> None:
    with pytest.raises(cd.ConfigError):
        cd.ServeConfig(**bad)
