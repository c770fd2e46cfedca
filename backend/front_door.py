"""What the server runs from its first moment: the health answers, a waiting page, then the app.

Importing Gradio and torch and loading the model take a while; uvicorn serves a `FrontDoor` from
the start, and the real app is installed from the thread that builds it. Knows nothing of what the
app is made of.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.errors import ConfigurationError, Unavailable
from backend.guards import is_page_load
from backend.wording import msg

_RETRY_AFTER_S = 2
_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors {framers}"
_FAILED = "could not start; the log says why"


class FrontDoor:
    """A pure ASGI app before and around the real one.

    Args:
        waiting_page: the HTML that is shown while starting, given what is going on and the request.
        phase: what is going on at first.
        framers: who may show the waiting page in a frame (CSP `frame-ancestors`).
    """

    def __init__(
        self,
        waiting_page: Callable[[str, Request], str],
        *,
        phase: str = msg("starting"),
        framers: str = "'none'",
    ) -> None:
        self._waiting_page = waiting_page
        self._policy = _PAGE_POLICY.format(framers=framers)
        self._phase = phase
        self._failure: str | None = None
        self._inner: _Hosted | None = None
        self._waits_for: Callable[[], str | None] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._serving = threading.Event()
        self._closed = False

    @property
    def failure(self) -> str | None:
        """Why there will be no app, once that is known; app.py then exits with status 2."""
        return self._failure

    def announce(self, phase: str) -> None:
        """Say what is going on; any thread."""
        self._phase = phase

    def fail(self, reason: str) -> None:
        """Remember that there will be no app; any thread."""
        self._failure = reason

    def install(self, inner: ASGIApp, waits_for: Callable[[], str | None]) -> None:
        """Start `inner` in the serving event loop, then let all requests through to it.

        Call from another thread; returns when the app's start-up is complete.

        Args:
            waits_for: what is missing for `/readyz`, None when live. Called in the event loop: it
                must not wait.

        Raises:
            ConfigurationError: the start-up failed; remembered in `failure`.
            Unavailable: the server was stopped meanwhile.
        """
        self._serving.wait()
        if self._loop is None or self._closed:
            raise Unavailable("the server was stopped")
        hosted = _Hosted(inner)
        try:
            asyncio.run_coroutine_threadsafe(hosted.start(), self._loop).result()
        except CancelledError:
            raise Unavailable("the server was stopped") from None
        except ConfigurationError as error:
            self.fail(str(error))
            raise
        self._waits_for = waits_for
        self._inner = hosted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http" and scope["path"] in {"/healthz", "/readyz"}:
            await self._health(scope["path"])(scope, receive, send)
        elif self._inner is not None:
            await self._inner(scope, receive, send)
        elif scope["type"] == "http":
            await self._waiting(scope)(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1013})

    def _health(self, path: str) -> Response:
        if path == "/healthz":
            return PlainTextResponse("ok")
        status = self._missing()
        return JSONResponse({"status": status or "live"}, 503 if status else 200)

    def _missing(self) -> str | None:
        if self._failure is not None:
            return _FAILED
        return self._phase if self._inner is None else self._waits_for()

    def _waiting(self, scope: Scope) -> Response:
        status = self._missing() or self._phase
        headers = {"Retry-After": str(_RETRY_AFTER_S), "Cache-Control": "no-store"}
        if not is_page_load(scope):
            return PlainTextResponse(f"Attune: {status}", 503, headers)
        headers["Content-Security-Policy"] = self._policy
        return HTMLResponse(self._waiting_page(status, Request(scope)), 503, headers)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        self._loop = asyncio.get_running_loop()
        self._serving.set()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._closed = True
        if self._inner is not None:
            await self._inner.stop()
        await send({"type": "lifespan.shutdown.complete"})


class _Hosted:
    """An ASGI app whose lifespan is entered and left in one task of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._state: dict[str, Any] = {}
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app({**scope, "state": dict(self._state)}, receive, send)

    async def start(self) -> None:
        """Raises ConfigurationError when the app does not start."""
        scope: Scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        self._task = asyncio.create_task(
            self._app(scope, self._to_app.get, self._from_app.put)  # type: ignore[arg-type]
        )
        await self._to_app.put({"type": "lifespan.startup"})
        answer = await self._answer(self._task)
        if answer != "lifespan.startup.complete":
            error = await _end(self._task)
            reason = f"{type(error).__name__}: {error}" if error else answer
            raise ConfigurationError(f"the web app did not start: {reason}") from error

    async def stop(self) -> None:
        """Leave the app's lifespan; what it raises there passes through."""
        if self._task is None:
            return
        await self._to_app.put({"type": "lifespan.shutdown"})
        await self._answer(self._task)
        await self._task

    async def _answer(self, task: asyncio.Task[None]) -> str:
        """The type of the app's next message, or a word when it ended without one."""
        answer = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait({task, answer}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return str(answer.result()["type"])
        answer.cancel()
        return "it ended at once"


async def _end(task: asyncio.Task[None]) -> BaseException | None:
    """What the task ended with."""
    await asyncio.wait({task})
    return task.exception()
