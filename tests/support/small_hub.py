"""A model hub of one repository on this machine: enough of its web interface for the real client to download from."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _handler(name: str, folder: Path, asked: list[str]) -> type[BaseHTTPRequestHandler]:
    """Return a handler that serves `folder` as the repository `name` and notes what was asked."""
    files = sorted(path.name for path in folder.iterdir())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._respond(body=False)

        def do_GET(self) -> None:
            self._respond(body=True)

        def _respond(self, *, body: bool) -> None:
            path = unquote(urlparse(self.path).path)
            asked.append(f"{self.command} {path}")
            if path.startswith(f"/api/models/{name}/tree/"):
                entries = [
                    {"type": "file", "path": file, "size": (folder / file).stat().st_size, "oid": _hash(folder / file)}
                    for file in files
                ]
                self._send(200, json.dumps(entries).encode(), body=body)
            elif path.startswith(f"/api/models/{name}"):
                facts = {
                    "id": name,
                    "modelId": name,
                    "sha": COMMIT,
                    "siblings": [{"rfilename": file} for file in files],
                }
                self._send(200, json.dumps(facts).encode(), body=body)
            elif path.startswith(f"/{name}/resolve/") and path.rpartition("/")[2] in files:
                file = folder / path.rpartition("/")[2]
                self._send(200, file.read_bytes(), body=body, ETag=f'"{_hash(file)}"', **{"X-Repo-Commit": COMMIT})
            else:
                self._send(404, b"{}", body=body, **{"X-Error-Code": "RepoNotFound"})

        def _send(self, status: int, content: bytes, *, body: bool, **headers: str) -> None:
            self.send_response(status)
            for key, value in {
                "Content-Length": str(len(content)),
                "Content-Type": "application/json",
                **headers,
            }.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    return Handler


def _hash(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def serving(name: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the address of a hub that holds `folder` under `name`, and the list of what it was asked."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(name, folder, asked))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
