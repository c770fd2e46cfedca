"""The lab as a researcher meets it, and as everybody else does not."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from playwright.sync_api import Page, expect

from dev.accessibility import serious_in_every_look
from dev.running import RunningApp
from tests.ui.conftest import Stored, answer_to_click, settled, sign_in

pytestmark = pytest.mark.browser

NAME = "<b>${7*7}</b>"
CURVE = [
    {
        "loss": 0.7 * 0.9**step,
        "accuracy": min(1.0, 0.5 + 0.06 * step),
        "accuracy_generic": 0.5 + 0.02 * (step % 3),
    }
    for step in range(10)
]
GATE = {
    "passed": False,
    "reasons": ["held-out loss rose by 0.21 nats (0.10 allowed)"],
    "figures": {
        "held_out_loss": 0.82,
        "held_out_loss_parent": 0.61,
        "round_loss_parent": 0.6931,
        "round_loss": 0.3198,
    },
    "samples": [{"user_id": None, "prompt": "How?", "text": "Like <b>this</b> ${7*7}"}],
}


@pytest.fixture(scope="module")
def rounds(app: RunningApp) -> None:
    """Three rounds as a trainer would have left them, one more version, one simulated user."""
    stored = Stored(app.data / "attune.db")
    artifact, sha256, base = stored.rows(
        "SELECT artifact, manifest_sha256, base_identity FROM versions WHERE id = 1"
    )[0]
    folder = app.data / "versions"
    shutil.copytree(folder / artifact, folder / "older")
    started = datetime.now(UTC).replace(tzinfo=None)
    for minutes, status, curve, gate, reason in (
        (50, "promoted", CURVE, {**GATE, "passed": True, "reasons": []}, None),
        (30, "refused", CURVE, GATE, "held-out loss rose by 0.21 nats (0.10 allowed)"),
        (10, "failed", None, None, "the loss is not a finite number at step 3"),
    ):
        at = started - timedelta(minutes=minutes)
        stored.rows(
            "INSERT INTO rounds (status, lease_epoch, parent_id, config, curve, gate, reason,"
            " started_at, ended_at) VALUES (?, 1, 1, '{}', ?, ?, ?, ?, ?)",
            status,
            json.dumps(curve),
            json.dumps(gate),
            reason,
            str(at),
            str(at + timedelta(seconds=52)),
        )
    stored.rows(
        "INSERT INTO versions (id, round_id, artifact, manifest_sha256, base_identity, created_at)"
        " VALUES (2, 1, 'older', ?, ?, ?)",
        sha256,
        base,
        str(started),
    )
    stored.rows(
        "INSERT INTO users (username, username_key, role, is_guest, is_simulated, created_at)"
        " VALUES (?, 'bold', 'annotator', 0, 1, ?)",
        NAME,
        str(started),
    )


@pytest.fixture
def researcher(
    app: RunningApp, stored: Stored, rounds: None, new_page: Callable[..., Page]
) -> Page:
    """In the lab, as a guest who was made a researcher."""
    page = new_page(viewport={"width": 1440, "height": 1000})
    sign_in(page, app.address)
    stored.rows("UPDATE users SET role = 'researcher' WHERE id = (SELECT max(id) FROM users)")
    page.goto(f"{app.address}/lab/")
    expect(page.locator("#lab-summary")).to_contain_text("version 1 is live")
    return page


def test_an_annotator_finds_no_lab(guest: Callable[..., Page]) -> None:
    page = guest()
    expect(page.get_by_role("link", name="Lab")).to_have_count(0)
    answer = page.goto(f"{page.url}lab/")
    assert answer is not None
    assert answer.status == 403
    expect(page.locator("#lab")).to_have_count(0)


def test_a_page_left_open_is_closed_with_the_role(researcher: Page, stored: Stored) -> None:
    """The page is open when the role is taken away; nothing on it works any more."""
    stored.rows("UPDATE users SET role = 'annotator' WHERE id = (SELECT max(id) FROM users)")
    assert answer_to_click(researcher, "#train-now").status in {401, 403}


def test_who_became_a_researcher_finds_the_lab(guest: Callable[..., Page], stored: Stored) -> None:
    page = guest()
    expect(page.get_by_role("link", name="Lab")).to_have_count(0)
    stored.rows("UPDATE users SET role = 'researcher' WHERE id = (SELECT max(id) FROM users)")
    page.reload()
    settled(page)
    page.get_by_role("link", name="Lab").click()
    expect(page.locator("#lab-summary p")).to_be_visible()


def test_rounds_versions_users(researcher: Page) -> None:
    rows = researcher.locator("#lab-rounds tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text("not a finite number")
    expect(rows.nth(2)).to_contain_text("0.6931 → 0.3198")
    expect(researcher.locator("#lab-versions tbody tr").filter(has_text="live")).to_have_count(1)
    simulated = researcher.locator("#lab-users tbody tr").filter(has_text="simulated")
    expect(simulated.locator("td").first).to_have_text(NAME)


def test_one_round(researcher: Page, picture: Callable[..., None]) -> None:
    expect(researcher.locator("#verdict")).to_contain_text("Not judged.")
    expect(researcher.locator("#plot-loss")).to_have_count(0)
    researcher.locator("#round-chosen input").click()
    researcher.get_by_role("option", name="Round 2").click()
    expect(researcher.locator("#verdict")).to_contain_text("held-out loss rose by 0.21 nats")
    expect(researcher.locator("#plot-loss .mark-line path")).to_have_count(1)
    expect(researcher.locator("#plot-accuracy .mark-line path")).to_have_count(2)
    researcher.get_by_role("button", name="Figures of the gate").click()
    expect(researcher.locator("#lab-round tbody tr").first).to_contain_text("0.82")
    researcher.get_by_role("button", name="Texts the gate generated").click()
    expect(researcher.locator("#samples blockquote")).to_have_text("Like <b>this</b> ${7*7}")
    researcher.set_viewport_size({"width": 1440, "height": 1100})
    picture(researcher, "lab", full_page=True)
    assert serious_in_every_look(researcher) == []


def test_train_now_where_no_round_can_start(researcher: Page) -> None:
    researcher.locator("#train-now").click()
    # Which of the two depends on whether other guests of this app have chosen.
    refusal = re.compile("^(There is no new choice to learn from|No trainer is running)")
    expect(researcher.locator("#notice p")).to_have_text(refusal)


def test_roll_back_asks_once(researcher: Page) -> None:
    researcher.locator("#roll-back").click()
    expect(researcher.locator("#notice")).to_contain_text("Choose a version first")
    researcher.locator("#roll-back-to input").click()
    researcher.get_by_role("option", name="Version 2").click()
    researcher.locator("#roll-back").click()
    expect(researcher.locator("#sure")).to_contain_text("Serve version 2 instead of 1")
    researcher.locator("#roll-back-no").click()
    expect(researcher.locator("#sure")).to_have_count(0)
    researcher.locator("#roll-back").click()
    expect(researcher.locator("#sure")).to_be_visible()
    researcher.locator("#roll-back-to input").click()
    researcher.get_by_role("option", name="Version 2").click()  # another choice, another question
    expect(researcher.locator("#sure")).to_have_count(0)
    researcher.locator("#roll-back").click()
    researcher.locator("#roll-back-yes").click()
    expect(researcher.locator("#notice")).to_contain_text("Version 2 is live")
    expect(researcher.locator("#lab-summary")).to_contain_text("version 2 is live")
    researcher.locator("#roll-back-to input").click()
    researcher.get_by_role("option", name="Version 1").click()
    researcher.locator("#roll-back").click()
    researcher.locator("#roll-back-yes").click()
    expect(researcher.locator("#lab-summary")).to_contain_text("version 1 is live")


def test_the_lab_in_the_dark_and_on_a_phone(researcher: Page, picture: Callable[..., None]) -> None:
    researcher.emulate_media(color_scheme="dark")
    researcher.reload()
    expect(researcher.locator("#lab-rounds tbody tr")).to_have_count(3)
    picture(researcher, "lab-dark")
    researcher.set_viewport_size({"width": 390, "height": 844})
    wide = researcher.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert not wide
