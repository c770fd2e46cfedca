"""ASGI middleware that stands before every page: where a request came from, what a page may do.

Knows no user and no route.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"http": 80, "https": 443}
_HUGGING_FACE = "https://huggingface.co"
# Networks that no visitor comes from, only proxies: this machine's own, private ones (RFC 1918, RFC
# 4193) and those that hosts share among their machines (RFC 6598).
_OF_PROXIES = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fc00::/7",
)

_log = logging.getLogger(__name__)


def trusted_proxies(*, embed: bool) -> list[str] | None:
    """Whose `X-Forwarded-For` uvicorn believes; None: this machine's, or what its variable names.

    On huggingface.co the proxies' addresses are not known, only that they are no public ones. With
    all addresses trusted instead, the entry that counts would be the one the visitor wrote.
    """
    return list(_OF_PROXIES) if embed else None


def content_security_policy(*, embed: bool, form_targets: Iterable[str] = ()) -> str:
    """The policy of Gradio's pages; our own pages send a stricter one.

    Gradio 6.31 needs inline scripts (its configuration stands in the page) and eval: `gr.HTML` and
    the plots compile their templates (tried: without it the page stays empty). What the policy
    still holds: no other site is loaded from, sent to, framed by or posted to.
    """
    directives = {
        "default-src": "'self'",
        "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "media-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": "'self'",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": " ".join(("'self'", *form_targets)),
        "frame-ancestors": _HUGGING_FACE if embed else "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def is_page_load(scope: Scope) -> bool:
    """Whether a browser asks for a page to show, not a script for data."""
    return scope["method"] in {"GET", "HEAD"} and _is_shown(scope)


def _is_shown(scope: Scope) -> bool:
    """Whether a browser shows the answer to a person, who may have sent a form."""
    headers = Headers(scope=scope)
    return (
        "text/html" in headers.get("accept", "")
        and headers.get("sec-fetch-mode", "navigate") == "navigate"
    )


class SecurityHeaders:
    """Adds the headers that a response does not bring itself."""

    def __init__(self, app: ASGIApp, *, policy: str, embed: bool) -> None:
        self._app = app
        self._headers = {
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            # Not no-referrer: browsers then send `Origin: null` with our own forms.
            "Referrer-Policy": "same-origin",
            "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
        }
        if not embed:
            self._headers["X-Frame-Options"] = "DENY"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class SameOrigin:
    """Refuses what another site makes a visitor's browser send (forms, scripts, web sockets).

    `Sec-Fetch-Site` decides where the browser sends it (scripts cannot set it); else `Origin` must
    be this very origin or `public_url`. A client that sends neither is no browser and carries no
    visitor's cookie.
    """

    def __init__(self, app: ASGIApp, *, public_url: str) -> None:
        self._app = app
        self._public = _origin(public_url)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["method"] not in _SAFE_METHODS and not self._is_ours(scope):
                refusal = PlainTextResponse("This request came from another site.", 403)
                await refusal(scope, receive, send)
                return
        elif scope["type"] == "websocket" and not self._is_ours(scope):
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "another site"})
            return
        await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin is not None and self._public is not None and _origin(origin) == self._public:
            return True
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site in {"same-origin", "none"}
        if origin is None:
            return True
        scheme = {"ws": "http", "wss": "https"}.get(scope["scheme"], scope["scheme"])
        here = _origin(f"{scheme}://{headers.get('host', '')}")
        return here is not None and _origin(origin) == here


class HttpsBehindProxy:
    """Takes the proxy's word that the visitor came by https; only where `public_url` says https."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            proto = Headers(scope=scope).get("x-forwarded-proto", "")
            if proto.split(",")[0].strip() == "https":
                scope = {**scope, "scheme": "https"}
        await self._app(scope, receive, send)


class ErrorPages:
    """Shows a person a page where a program would get `{"detail": …}`, and where we failed."""

    def __init__(self, app: ASGIApp, *, render: Callable[[int, str, Request], str]) -> None:
        self._app = app
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_shown(scope):
            await self._app(scope, receive, send)
            return
        begun = False
        status = 0  # of an error that is being held back
        body = b""

        async def show(code: int, detail: str) -> None:
            nonlocal begun
            begun = True
            page = HTMLResponse(self._render(code, detail, Request(scope)), code)
            await page(scope, receive, send)

        async def hold_errors(message: Message) -> None:
            nonlocal begun, status, body
            if message["type"] == "http.response.start" and _is_bare_error(message):
                status = message["status"]
            elif not status:
                begun = True
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await show(status, _detail(body))

        try:
            await self._app(scope, receive, hold_errors)
        except Exception:
            if begun:
                raise  # uvicorn logs it; nothing else can be said any more
            _log.exception("a page failed")
            await show(500, "")


def _is_bare_error(start: Message) -> bool:
    """Made for programs, or the few words Starlette has for a fault in a mounted app."""
    content_type = Headers(raw=start["headers"]).get("content-type", "")
    return (start["status"] >= 400 and content_type.startswith("application/json")) or (
        start["status"] == 500 and content_type.startswith("text/plain")
    )


def _detail(body: bytes) -> str:
    try:
        content: Any = json.loads(body)
    except ValueError:
        return ""
    detail = content.get("detail") if isinstance(content, dict) else None
    return detail if isinstance(detail, str) else ""


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of a URL or an `Origin` header; None when there is no such thing."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return None
    if parts.scheme not in _PORTS or not parts.hostname:
        return None
    return parts.scheme, parts.hostname, port
