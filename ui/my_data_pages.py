"""Taking one's data along, and erasing oneself: a streamed download, and a form that asks twice.

Server-drawn, so that signing out comes with the answer. Knows no SQL.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from backend.auth import CurrentUser
from backend.erasure import Erasure
from backend.errors import AttuneError
from backend.my_data import MyData
from backend.web import SessionCookie, Visitors
from ui.forms import fields, show_form
from ui.server_pages import ServerPages
from ui.taste_parts import DOWNLOAD_PATH, ERASE_PATH

_FILE = "attune-my-data.jsonl"


@dataclass(frozen=True, kw_only=True)
class MyDataPages:
    """`/taste/data.jsonl` and `/taste/erase`; add them before Gradio takes `/taste`."""

    my_data: MyData
    erasure: Erasure
    visitors: Visitors
    cookie: SessionCookie
    shown: ServerPages

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        app.add_route(DOWNLOAD_PATH, self.download, methods=["GET"])
        app.add_route(ERASE_PATH, self.ask, methods=["GET"])
        app.add_route(ERASE_PATH, self.erase, methods=["POST"])

    async def download(self, request: Request) -> Response:
        """All of the caller's data, sent as it is read."""
        user = await self.visitors.current_user(request)
        if user is None:
            return _to_login("/taste/")
        return StreamingResponse(
            self._lines(user.id),
            media_type="application/x-ndjson",
            headers={
                "Content-Disposition": f'attachment; filename="{_FILE}"',
                "Cache-Control": "no-store",
            },
        )

    async def ask(self, request: Request) -> Response:
        """What will be erased, what not, by when."""
        user = await self.visitors.current_user(request)
        return _to_login(ERASE_PATH) if user is None else self._form(request, user)

    async def erase(self, request: Request) -> Response:
        """It is done, and the browser is signed out; or the form again with what was wrong."""
        user = await self.visitors.current_user(request)
        if user is None:
            return _to_login(ERASE_PATH)
        typed = (await fields(request)).get("name", "")
        try:
            await run_in_threadpool(self.erasure.erase, user.id, typed)
        except AttuneError as error:
            return self._form(request, user, error, typed)
        response = self.shown.show(request, "erased.html")
        self.cookie.forget(response)
        return response

    def _lines(self, user_id: int) -> Iterator[bytes]:
        return (line.encode() for line in self.my_data.lines(user_id))

    def _form(
        self, request: Request, user: CurrentUser, error: AttuneError | None = None, typed: str = ""
    ) -> Response:
        return show_form(self.shown, request, "erase.html", error, user=user, typed=typed)


def _to_login(target: str) -> Response:
    return RedirectResponse(f"/login?next={target}", 303)
