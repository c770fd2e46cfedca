"""The whole site without Gradio on SQLite, an OpenID provider, and people who visit.

What both databases must do is tested in tests/backend.
"""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

import ui
from backend.administration import Administration
from backend.auth import Accounts
from backend.erasure import Erasure
from backend.introductions import Introductions
from backend.my_data import MyData
from backend.oauth import HuggingFaceLogin
from backend.web import SessionCookie, Visitors, create_web
from db.session import Database
from tests.backend.people import GOOD, cheap
from tests.backend.provider import CLIENT_ID, CLIENT_SECRET, URL, Provider
from tests.conftest import Clock
from ui.form_pages import add_form_pages
from ui.language import Languages
from ui.server_pages import ErrorPage

ASSETS = Path(ui.__file__).parent / "assets"


class Site:
    """The whole site without Gradio, and people who visit it."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        introduction: bool = False,
        consent_text: str = "",
        **policy: Any,
    ) -> None:
        self._database = database = Database(url)
        self._clock = clock
        self.accounts = Accounts(database, passwords=cheap(), clock=clock, **policy)
        self.administration = Administration(database, clock=clock)
        self.provider = Provider()
        self.app = create_web(assets=ASSETS, error_page=ErrorPage(Languages()))
        self._introductions = Introductions(
            database, clock=clock, offered=introduction, consent_text=consent_text
        )
        self._visitors = Visitors(self.accounts, lacks_consent=self._introductions.lacks_consent)
        self.add_pages(
            self.app,
            HuggingFaceLogin(
                client_id=CLIENT_ID,
                client_secret=CLIENT_SECRET,
                provider_url=URL,
                secure=False,
                transport=self.provider.transport,
            ),
        )
        _add_home(self.app, self._visitors)

    def add_pages(self, app: FastAPI, hugging_face: HuggingFaceLogin | None = None) -> None:
        """All server-drawn pages."""
        database, clock = self._database, self._clock
        add_form_pages(
            app,
            accounts=self.accounts,
            administration=self.administration,
            visitors=self._visitors,
            cookie=SessionCookie(secure=False, embed=False),
            languages=Languages(),
            introductions=self._introductions,
            my_data=MyData(database, None, clock=clock),
            erasure=Erasure(database, None, follow=lambda: None, clock=clock),
            hugging_face=hugging_face,
        )

    def close(self) -> None:
        self._database.close()

    def visitor(self) -> TestClient:
        return TestClient(self.app, follow_redirects=False, headers={"Accept": "text/html"})

    def member(self, name: str = "mara") -> TestClient:
        client = self.visitor()
        form = {"username": name, "password": GOOD}
        assert client.post("/signup", data=form).status_code == 303
        return client

    def admin(self) -> TestClient:
        client = self.visitor()
        token = self.administration.first_admin_invite()
        form = {"username": "chief", "password": GOOD}
        assert client.post(f"/invite/{token}", data=form).status_code == 303
        return client


def _add_home(app: FastAPI, visitors: Visitors) -> None:
    async def home(request: Request) -> Response:
        return PlainTextResponse(await visitors.page_user(request))

    app.add_route("/", home)


def who(client: TestClient) -> str | None:
    """The id of the user this browser is signed in as."""
    response = client.get("/")
    return response.text if response.status_code == 200 else None


def text(response: Any) -> str:
    """What a person reads."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.text)).split())
