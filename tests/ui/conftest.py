"""The whole app on the echo engine, and people at its pages."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, ViewportSize, expect

from dev.running import RunningApp
from tests.conftest import where_it_is_morning

DESKTOP: ViewportSize = {"width": 1280, "height": 760}
PHONE: ViewportSize = {"width": 390, "height": 844}


@dataclass(frozen=True)
class Stored:
    """What the app has in its database, read from outside."""

    path: Path

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path, timeout=15)
        try:
            with connection:
                return connection.execute(query, values).fetchall()
        finally:
            connection.close()

    def standing(self, username: str) -> list[tuple[str, int | None, str | None]]:
        """Verdict, strength and reason of a user's choices that stand, oldest first."""
        return self.rows(
            "SELECT c.verdict, c.strength, c.reason FROM choices c JOIN users u ON u.id = c.user_id"
            " WHERE u.username = ? AND c.verdict != 'withdrawn'"
            " AND NOT EXISTS (SELECT 1 FROM choices n WHERE n.supersedes_id = c.id) ORDER BY c.id",
            username,
        )


@pytest.fixture
def stored(app: RunningApp) -> Stored:
    return Stored(app.data / "attune.db")


@pytest.fixture(scope="session")
def kept_context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser that has been here before: our scripts are in its cache, which halves a load."""
    context = browser.new_context(viewport=DESKTOP, timezone_id=where_it_is_morning())
    yield context
    context.close()


@pytest.fixture
def guest(
    app: RunningApp, new_page: Callable[..., Page], kept_context: BrowserContext
) -> Iterator[Callable[..., Page]]:
    """Somebody new at a page of ours; at the end, no script may have failed.

    The first one without wishes for the browser gets the kept one.
    """
    failures: list[str] = []
    kept = [kept_context]

    def arrive(path: str = "/", **options: Any) -> Page:
        if options or not kept:
            page = new_page(**{"viewport": DESKTOP, **options})
        else:
            page = kept.pop().new_page()
        page.on("pageerror", lambda error: failures.append(str(error)))
        sign_in(page, app.address)
        page.goto(f"{app.address}{path}")
        if path == "/":
            settled(page)
        return page

    yield arrive
    for page in kept_context.pages:
        page.close()
    kept_context.clear_cookies()
    kept_context.set_offline(False)
    assert failures == []


def sign_in(page: Page, address: str) -> None:
    """A new guest in this page's browser, without a look at the door."""
    answer = page.request.post(
        f"{address}/guest", headers={"Origin": address}, form={}, max_redirects=0
    )
    assert answer.status == 303


def enter(page: Page, address: str) -> None:
    """Through the door as a guest, up to the first pair."""
    page.goto(f"{address}/login")
    page.get_by_role("button", name="Try it as a guest").click()
    settled(page)


def settled(page: Page) -> None:
    """A pair is there and the bar listens."""
    expect(page.locator("#choose-a")).to_be_enabled()


def answer_to_click(page: Page, button: str) -> Response:
    """What the server answers to this click; a clock's refresh may be under way beside it."""
    component = page.evaluate(
        "id => window.gradio_config.components.find(one => one.props.elem_id === id).id",
        button.removeprefix("#"),
    )

    def of_this_click(response: Response) -> bool:
        sent = response.request.post_data_json if "/gradio_api/run/" in response.url else None
        return sent is not None and sent["trigger_id"] == component

    with page.expect_response(of_this_click) as answered:
        page.locator(button).click()
    return answered.value


def name_of(page: Page) -> str:
    """The user's name, from the account page."""
    account = page.request.get(urljoin(page.url, "/account")).text()
    name = re.search("<h1>(.+)</h1>", account)
    assert name is not None
    return unescape(name[1])


def counted(page: Page, choices: int) -> None:
    """The page counts so many choices, and the next pair is there."""
    expect(page.locator("#count")).to_have_text(f"{choices} of 20 today")
    settled(page)
