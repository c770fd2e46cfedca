"""All server-drawn pages put on the app: the way in, the account, the guide, one's own data."""

from __future__ import annotations

from fastapi import FastAPI

from backend.administration import Administration
from backend.auth import Accounts
from backend.erasure import Erasure
from backend.introductions import Introductions
from backend.my_data import MyData
from backend.oauth import HuggingFaceLogin
from backend.web import SessionCookie, Visitors
from ui.account_page import AccountPage
from ui.accounts import Door
from ui.guide import add_guide
from ui.intro import IntroPages
from ui.language import Languages
from ui.language_choice import LanguageChoice
from ui.my_data_pages import MyDataPages
from ui.server_pages import ServerPages


def add_form_pages(
    app: FastAPI,
    *,
    accounts: Accounts,
    administration: Administration,
    visitors: Visitors,
    cookie: SessionCookie,
    languages: Languages,
    introductions: Introductions,
    my_data: MyData,
    erasure: Erasure,
    hugging_face: HuggingFaceLogin | None = None,
    public_url: str = "",
    embed: bool = False,
) -> None:
    """Put the pages on the app; call before Gradio takes `/`."""
    targets = () if hugging_face is None else (hugging_face.origin,)
    shown = ServerPages(languages, embed=embed, form_targets=targets)
    Door(
        accounts=accounts,
        administration=administration,
        visitors=visitors,
        cookie=cookie,
        shown=shown,
        introductions=introductions,
        hugging_face=hugging_face,
        public_url=public_url,
        embed=embed,
    ).add_to(app)
    IntroPages(introductions=introductions, visitors=visitors, shown=shown).add_to(app)
    AccountPage(
        accounts=accounts,
        administration=administration,
        visitors=visitors,
        cookie=cookie,
        shown=shown,
        public_url=public_url,
    ).add_to(app)
    LanguageChoice(languages=languages, accounts=accounts, visitors=visitors, cookie=cookie).add_to(
        app
    )
    MyDataPages(
        my_data=my_data, erasure=erasure, visitors=visitors, cookie=cookie, shown=shown
    ).add_to(app)
    add_guide(app, shown)
