"""Let in who carries the token, from a page of this server, with a request of a bounded size.

Against a page on another site that asks this server in the reader's browser: the header Host must be a name of this
machine (a rebound DNS name is not), a change needs an Origin of this server or a token in the header Authorization,
and the cookie is sent by pages of this site only (SameSite=Strict).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from semicdvl.review.settings import ServeConfig

MAX_BODY_BYTES = 4 * 2**20
"""Largest request: an edited outline of thousands of vertices, or a painted patch."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN_PATHS = frozenset({"/api/health"})
"""Paths that need no token; they tell nothing."""
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class RequestTooLarge(Exception):
    """A request body grew beyond `MAX_BODY_BYTES` while it was read."""


class Guard:
    """The outermost layer of the server: every request passes here first."""

    def __init__(self, app: App, *, config: ServeConfig) -> None:
        """Guard an application."""
        self.app, self.config = app, config
        self.cookie = f"semicdvl_review_{hashlib.sha256(config.token.encode()).hexdigest()[:12]}"

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer a refusal, or hand the request on with bounded reading and security headers."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        protected = _add_headers(send)
        refusal = self._find_refusal(scope, headers)
        if refusal is not None:
            await refusal(scope, receive, protected)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await protected(message)

        try:
            await self.app(scope, _bound_reading(receive), watched)
        except RequestTooLarge:
            if not started:
                await _refuse(413, _TOO_LARGE)(scope, receive, protected)

    def _find_refusal(self, scope: MutableMapping[str, Any], headers: Headers) -> Response | None:
        """Return the answer to a request that is not let in; None for one that is."""
        host = headers.get("host", "")
        if not self.config.allows_host(_strip_port(host)):
            return _refuse(400, "This server does not know itself by that name. Open the address that it printed.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return _refuse(403, "The request comes from another site.")
        length = headers.get("content-length")
        if length is not None and (not length.isdecimal() or int(length) > MAX_BODY_BYTES):
            return _refuse(413, _TOO_LARGE)
        if scope["path"] in OPEN_PATHS:
            return None
        return self._check_token(scope, headers, origin)

    def _check_token(self, scope: MutableMapping[str, Any], headers: Headers, origin: str | None) -> Response | None:
        """Return the answer to a request without a valid token; a page's address hands it over to a cookie."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if given is not None and scope["method"] == "GET" and not scope["path"].startswith("/api/"):
            return self._exchange(scope["path"], query) if self._is_token(given) else _ask_for_token(scope["path"])
        bearer = headers.get("authorization", "")
        if bearer.lower().startswith("bearer "):
            return None if self._is_token(bearer[7:].strip()) else _ask_for_token(scope["path"])
        if not self._is_token(_read_cookie(headers.get("cookie", ""), self.cookie)):
            return _ask_for_token(scope["path"])
        if scope["method"] not in SAFE_METHODS and origin is None:
            return _refuse(403, "A change needs the header Origin, or the token in the header Authorization.")
        return None

    def _is_token(self, given: str) -> bool:
        """Compare in constant time."""
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.config.token.encode())

    def _exchange(self, path: str, query: list[tuple[str, str]]) -> Response:
        """Set the cookie and lead to the address without the token, so that it stays out of the history."""
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        answer = RedirectResponse("/" + path.lstrip("/") + (f"?{rest}" if rest else ""), status_code=303)
        answer.set_cookie(self.cookie, self.config.token, httponly=True, samesite="strict", path="/")
        answer.headers["Cache-Control"] = "no-store"
        return answer


_NO_TOKEN = "Open the whole address that `semicdvl serve` printed, with its token, which is new at every start."
_UNAUTHORISED = {"Cache-Control": "no-store", "WWW-Authenticate": "Bearer"}
_TOO_LARGE = f"The request is larger than {MAX_BODY_BYTES // 2**20} MiB."


def _ask_for_token(path: str) -> Response:
    """Return the answer to a request without a valid token: as text where a person opened a page."""
    if path.startswith("/api/"):
        return _refuse(401, _NO_TOKEN)
    return PlainTextResponse(_NO_TOKEN, status_code=401, headers=_UNAUTHORISED)


def _refuse(status: int, reason: str) -> Response:
    """Return a refusal."""
    headers = _UNAUTHORISED if status == 401 else {"Cache-Control": "no-store"}
    return JSONResponse({"detail": reason}, status_code=status, headers=headers)


def _strip_port(host: str) -> str:
    """Return the name of a Host header without its port."""
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


def _read_cookie(header: str, name: str) -> str:
    """Return the value of a cookie; "" where there is none."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return "" if found is None else found.value


def _add_headers(send: Send) -> Send:
    """Return a `send` that adds the security headers."""

    async def send_protected(message: Message) -> None:
        if message["type"] == "http.response.start":
            have = {name.lower() for name, _ in message.get("headers", [])}
            added = [
                (k.lower().encode(), v.encode()) for k, v in SECURITY_HEADERS.items() if k.lower().encode() not in have
            ]
            message["headers"] = [*message.get("headers", []), *added]
        await send(message)

    return send_protected


def _bound_reading(receive: Receive) -> Receive:
    """Return a `receive` that stops at a body larger than the bound, also where no length was announced."""
    seen = 0

    async def receive_bounded() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > MAX_BODY_BYTES:
                raise RequestTooLarge
        return message

    return receive_bounded
