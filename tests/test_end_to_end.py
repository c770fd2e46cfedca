"""The whole loop, once, as a person: real model, real browser, real round, kill -9, back again."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from dev.running import RunningApp
from dev.waiting import wait_for, wait_until_it_listens

ROUND_WITHIN_MS = 600_000
PAIR_WITHIN_MS = 120_000
BUTTONS = {"a": "#choose-a", "tie": "#choose-tie", "b": "#choose-b"}
KEYS = {"a": "1", "tie": "2", "b": "4"}
SETTINGS = {
    "max_new_tokens": "32",
    "round_min_choices": "10",
    "round_epochs": "1",
    "fast_update_choices": "0",  # one full round makes version 2; nothing is under way at the kill
    # Every choice teaches: which ones would not is drawn.
    "blind_share": "0",
    "base_share": "0",
    "repeat_share": "0",
    "tick_s": "0.5",
    "log_level": "info",
}


def _choose_the_shorter(page: Page, number: int) -> None:
    """Wait for pair `number` (from 0); take the shorter response, by mouse and key in turn."""
    expect(page.locator("#undo")).to_be_enabled(timeout=PAIR_WITHIN_MS)
    wait_until_it_listens(page)
    lengths = {side: len(page.locator(f"#response-{side}").inner_text()) for side in "ab"}
    verdict = "a" if lengths["a"] <= lengths["b"] else "b"
    if number % 2:
        page.keyboard.press(KEYS[verdict])
    else:
        page.locator(BUTTONS[verdict]).click()
    expect(page.locator("#count")).to_have_text(re.compile(rf"^\s*{number + 1} of 20"))


def _rows(data: Path, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(data / "attune.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


@pytest.mark.browser
@pytest.mark.embedded
@pytest.mark.timeout(1500)
def test_one_persons_choices_change_what_that_person_is_served(
    tmp_path: Path,
    embedded_model_path: Path,
    new_page: Callable[[], Page],
    picture: Callable[..., None],
) -> None:
    data = tmp_path / "data"
    page = new_page()
    with RunningApp(data, **SETTINGS) as app:
        app.wait_ready()
        page.goto(f"{app.address}/login")
        picture(page, "login")
        page.goto(f"{app.address}/signup")
        page.fill("[name=username]", "mia")
        page.fill("[name=password]", "correct horse battery")
        page.keyboard.press("Enter")
        expect(page.locator("#chip")).to_contain_text("version 1")
        for number in range(10):
            _choose_the_shorter(page, number)
        expect(page.locator("#chip")).to_contain_text("version 2", timeout=ROUND_WITHIN_MS)

        # The next pairs made are of the new version; those made before are put away unseen.
        newest = "SELECT version_id FROM responses ORDER BY id DESC LIMIT 2"
        wait_for(lambda: _rows(data, newest) == [(2,), (2,)], within_s=PAIR_WITHIN_MS / 1000)
        _choose_the_shorter(page, 10)
        _choose_the_shorter(page, 11)
        expect(page.locator("#undo")).to_be_enabled(timeout=PAIR_WITHIN_MS)
        shown = page.locator("#response-a").inner_text()
        app.kill()

    rounds = _rows(data, "SELECT status, reason FROM rounds")
    assert rounds[0] == ("promoted", None)
    with RunningApp(data, **SETTINGS) as app:
        app.wait_ready()
        page.goto(f"{app.address}/login")
        page.goto(f"{app.address}/")
        expect(page.locator("#chip")).to_contain_text("version 2")
        expect(page.locator("#chip")).to_contain_text("12 choices")
        expect(page.locator("#response-a")).to_have_text(shown, use_inner_text=True)
        assert _rows(data, "SELECT count(*) FROM choices") == [(12,)]
        picture(page, "loop-compare")

        page.goto(app.wait_invite())
        page.get_by_role("button", name="Accept for this account").click()
        page.goto(f"{app.address}/lab/")
        expect(page.locator("#lab")).to_contain_text("promoted")
        # The page draws several plots, on a machine that makes pairs meanwhile.
        expect(page.locator("#plot-loss .mark-line path")).to_have_count(1, timeout=PAIR_WITHIN_MS)
        picture(page, "loop-lab", full_page=True)
