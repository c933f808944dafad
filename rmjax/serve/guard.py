"""What every request meets first, and every answer last."""

import hmac
import time
from collections.abc import Collection
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rmjax.serve.metrics import Metrics

LOOPBACK = ("127.0.0.1", "::1", "localhost")
PAGE = "/page/"
_OPEN = ("/", "/healthz")  # without a token; what lies in PAGE as well

SECURITY = {
    # Pictures that the page makes itself: previews of files, and spectra.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: that a request has to show; None for none.
        hosts: names by which the server may be called; None for any.
    """

    token: str | None = None
    hosts: Collection[str] | None = LOOPBACK


class Guard:
    """Refuses requests before the application sees them, counts and seals all answers.

    Args:
        app: the application.
        access: who may ask.
        max_requests: that have a body and are read or answered at once.
        paths: of the application, to count by.
        metrics: where requests are counted.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        max_requests: int,
        paths: Collection[str],
        metrics: Metrics,
    ):
        self._app = app
        self._access = access
        self._max_requests = max_requests
        self._paths = paths
        self._metrics = metrics
        self._waiting = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500
        has_body = scope["method"] not in ("GET", "HEAD", "OPTIONS")

        async def seal(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY)
                if has_body and status >= 400:  # the rest of the body is not waited for
                    headers["Connection"] = "close"
            await send(message)

        self._count(has_body)
        try:
            app = self._refuse(scope, has_body) or self._app
            await app(scope, receive, seal)
        finally:
            self._count(-has_body)
            path = self._name(scope["path"])
            self._metrics.requests.labels(path, status).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - start)

    def _count(self, requests: int) -> None:
        self._waiting += requests
        self._metrics.waiting.set(self._waiting)

    def _refuse(self, scope: Scope, has_body: bool) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        text = _check_hosts(headers, self._access.hosts)
        if text:
            return refusal(403, text)
        is_open = path in _OPEN or path.startswith(PAGE)
        if not is_open and not _has_token(headers, self._access.token):
            text = "token missing or wrong: send Authorization: Bearer TOKEN"
            return refusal(401, text, {"WWW-Authenticate": "Bearer"})
        if has_body and self._waiting > self._max_requests:
            text = "too many requests at once: send it again in a second"
            return refusal(503, text, {"Retry-After": "1"})
        return None

    def _name(self, path: str) -> str:
        if path in self._paths:
            return path
        return PAGE if path.startswith(PAGE) else "other"


def refusal(
    status: int, text: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return an error as every one is sent."""
    return JSONResponse({"error": text}, status, headers)


def _check_hosts(headers: Headers, hosts: Collection[str] | None) -> str:
    """Say what is wrong with where a browser believes to be; nothing of other clients.

    A page from elsewhere may have its own name lead here, or post here: it would ask in
    the name of whoever looks at it.
    """
    if hosts is None:
        return ""
    host = headers.get("host", "")
    if _hostname(f"//{host}") not in hosts:
        return f"the header Host has to name one of {', '.join(hosts)}"
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
        return f"pages from elsewhere may not ask: the header Origin is not {host}"
    return ""


def _hostname(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _has_token(headers: Headers, token: str | None) -> bool:
    if token is None:
        return True
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # In constant time: how long it takes must not tell how much of it is right.
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    return right and scheme.lower() == "bearer"
