"""Choosing the language of all pages: kept with the account, and in the browser for its pages.

The browser's cookie decides, so no page has to ask the database; signing in brings the account's
choice along.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from backend.auth import Accounts
from backend.web import SessionCookie, Visitors
from ui.forms import fields
from ui.language import COOKIE, Languages
from ui.server_pages import local_path

PATH = "/language"
_LASTS_S = 400 * 24 * 3600  # the longest that browsers keep a cookie


def keep_language(cookie: SessionCookie, response: Response, code: str) -> None:
    """This browser's pages are in the language from now on; none: as the browser says."""
    cookie.set(response, COOKIE, code, _LASTS_S if code else 0)


@dataclass(frozen=True, kw_only=True)
class LanguageChoice:
    """The form at the foot of server-drawn pages."""

    languages: Languages
    accounts: Accounts
    visitors: Visitors
    cookie: SessionCookie

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        app.add_route(PATH, self.choose, methods=["POST"])
        app.add_route(PATH, self.back, methods=["GET"])

    async def back(self, _request: Request) -> Response:
        return RedirectResponse("/", 303)

    async def choose(self, request: Request) -> Response:
        """Back to the page, in the language chosen; what is not offered changes nothing."""
        form = await fields(request)
        code = form.get("language", "")
        response = RedirectResponse(local_path(form.get("next", "/")), 303)
        if not code or self.languages.offers(code):
            keep_language(self.cookie, response, code)
            user = await self.visitors.current_user(request)
            if user is not None:
                await run_in_threadpool(self.accounts.choose_language, user.id, code)
        return response
