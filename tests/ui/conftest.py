"""The whole app on the echo engine, and people at its pages."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from dev.running import RunningApp

# What takes a moment here may take many on a busy machine.
expect.set_options(timeout=20_000)

DESKTOP = {"width": 1280, "height": 760}
PHONE = {"width": 390, "height": 844}


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


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    """One app for all of these tests; each test is a guest of its own."""
    with RunningApp(tmp_path_factory.mktemp("ui") / "data", engine="echo") as running:
        yield running.wait_ready()


@pytest.fixture
def stored(app: RunningApp) -> Stored:
    return Stored(app.data / "attune.db")


@pytest.fixture
def guest(app: RunningApp, new_page: Callable[..., Page]) -> Iterator[Callable[..., Page]]:
    """Somebody new before their first pair; at the end, no script may have failed."""
    failures: list[str] = []

    def arrive(**options: Any) -> Page:
        page = new_page(**{"viewport": DESKTOP, **options})
        page.on("pageerror", lambda error: failures.append(str(error)))
        enter(page, app.address)
        return page

    yield arrive
    assert failures == []


def enter(page: Page, address: str) -> None:
    """Through the door as a guest, up to the first pair."""
    page.goto(f"{address}/login")
    page.get_by_role("button", name="Try it as a guest").click()
    settled(page)


def settled(page: Page) -> None:
    """A pair is there and the bar listens."""
    expect(page.locator("#choose-a")).to_be_enabled()


def name_of(page: Page) -> str:
    """The user's name, from the account page."""
    tab = page.context.new_page()
    tab.goto(page.url + "account")
    name = tab.locator("h1").inner_text()
    tab.close()
    return name


def counted(page: Page, choices: int) -> None:
    """The page counts so many choices, and the next pair is there."""
    expect(page.locator("#count")).to_have_text(f"{choices} of 20 today")
    settled(page)
