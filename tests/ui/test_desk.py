"""The desk in the browser: help and keys, own words, replies, topics; nothing lost on the way."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, Request, Route, expect

from dev.running import RunningApp
from tests.backend.people import GOOD
from tests.ui.conftest import DESKTOP, Stored, counted, name_of, settled

pytestmark = pytest.mark.browser

Guest = Callable[..., Page]


def test_help_on_a_question_mark(guest: Guest, stored: Stored) -> None:
    page = guest()
    name = name_of(page)
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_have_count(0)
    page.keyboard.press("Shift+?")
    expect(dialog).to_be_visible()
    expect(page.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("1")  # the pair is behind
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.get_by_role("button", name="Keys").click()
    expect(dialog).to_be_visible()
    page.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()
    expect(page.locator("#help-open")).to_be_focused()
    assert stored.standing(name) == []


def test_keys_can_be_switched_off(guest: Guest, stored: Stored) -> None:
    page = guest()
    name = name_of(page)
    page.keyboard.press("?")
    with page.expect_response(lambda answer: _sends(answer.request, "[false]")):  # kept, before …
        page.get_by_label("Use these keys").uncheck()
    page.keyboard.press("Escape")
    for again in (False, True):
        if again:
            page.reload()  # … what is under way is lost
            settled(page)
            expect(page.locator("#use-keys input")).not_to_be_checked()
        page.keyboard.press("1")
        page.keyboard.press("?")
        expect(page.locator("#help")).to_be_hidden()
    page.locator("#choose-b").click()
    counted(page, 1)
    assert stored.standing(name) == [("b", 1, None)]


def test_a_reason_in_ones_own_words(guest: Guest, stored: Stored) -> None:
    page = guest()
    page.keyboard.press("1")
    counted(page, 1)
    page.locator("#reason-other").click()
    box = page.locator("#reason-text :is(textarea, input)")
    expect(box).to_be_focused()
    page.keyboard.type("1 <b>fewer</b> adjectives, u see?")
    page.keyboard.press("Escape")  # out of the box: the keys are back, the words are kept
    expect(box).not_to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    page.keyboard.press("Escape")
    box.press("Enter")
    expect(box).to_have_count(0)
    assert stored.standing(name_of(page)) == [("a", 1, "1 <b>fewer</b> adjectives, u see?")]


def test_clearly_without_a_shift_key(guest: Guest, stored: Stored) -> None:
    page = guest()
    page.locator("#choose-a").click()
    counted(page, 1)
    page.get_by_role("button", name="clearly better", exact=True).click()
    expect(page.locator("#was-clear")).to_be_disabled()
    page.get_by_role("button", name="clearer").click()
    expect(page.get_by_role("button", name="clearer")).to_be_disabled()
    assert stored.standing(name_of(page)) == [("a", 2, "clearer")]
    settled(page)
    page.locator("#choose-b").click()
    counted(page, 2)
    expect(page.locator("#was-clear")).to_be_enabled()


def test_a_reply_goes_on_with_the_preferred_response(guest: Guest, stored: Stored) -> None:
    page = guest()
    asked = page.locator("#prompt h1").inner_text()
    preferred = page.locator("#response-b").inner_text()
    page.locator("#choose-b").click()
    counted(page, 1)
    waiting = page.locator("#prompt h1").inner_text()
    page.get_by_role("button", name="Reply to it").click()
    box = page.locator("#own-text :is(textarea, input)")
    box.fill("And then? ${7*7} <b>")
    box.press("Enter")
    expect(page.locator("#prompt h1")).to_have_text("And then? ${7*7} <b>")
    expect(page.locator("#earlier")).to_contain_text(asked, use_inner_text=True)
    expect(page.locator("#earlier")).to_contain_text(preferred, use_inner_text=True)
    settled(page)
    page.reload()
    settled(page)
    expect(page.locator("#earlier")).to_contain_text(preferred, use_inner_text=True)
    page.locator("#choose-a").click()
    counted(page, 2)
    expect(page.locator("#prompt h1")).to_have_text(waiting, use_inner_text=True)
    expect(page.locator("#earlier")).to_have_text("")
    rows = stored.rows(
        "SELECT count(*) FROM comparisons c JOIN users u ON u.id = c.user_id"
        " WHERE u.username = ? AND c.continues_id IS NOT NULL",
        name_of(page),
    )
    assert rows == [(1,)]


def test_what_a_response_draws_stays_in_its_card(guest: Guest, stored: Stored) -> None:
    page = guest()
    stored.rows(
        "UPDATE responses SET text = ? WHERE side = 'A' AND comparison_id IN (SELECT c.id FROM"
        " comparisons c JOIN users u ON u.id = c.user_id WHERE u.username = ?)",
        "| a | b |\n|---|---|\n| 1 | <style>*{display:none}</style> |\n\n"
        "$$\\rule{900em}{900em}$$ \\(\\kern{-50em}\\rule{99em}{9em}\\) "
        "$$\\href{javascript:window.ran=1}{x}$$",
        name_of(page),
    )
    page.reload()
    settled(page)
    expect(page.locator("#response-a td")).to_have_count(2)
    expect(page.locator("#response-a td").last).to_contain_text("<style>")
    expect(page.locator("#response-a .katex").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("document.documentElement.scrollHeight < 3000")
    assert page.locator('#pair a[href^="javascript"]').count() == 0
    page.locator("#choose-b").click()  # nothing lies over it
    counted(page, 1)


def test_an_empty_response_is_written_again(guest: Guest, stored: Stored) -> None:
    page = guest()
    other = page.locator("#response-b").inner_text()
    stored.rows(
        "UPDATE responses SET text = '' WHERE side = 'A' AND comparison_id IN (SELECT c.id FROM"
        " comparisons c JOIN users u ON u.id = c.user_id WHERE u.username = ? AND"
        " c.shown_at IS NOT NULL)",
        name_of(page),
    )
    page.reload()
    expect(page.locator("#retry-b")).to_have_count(0)
    page.locator("#retry-a").click()
    expect(page.locator("#response-a p")).to_be_visible()
    expect(page.locator("#retry-a")).to_have_count(0)
    expect(page.locator("#response-b")).to_have_text(other, use_inner_text=True)
    page.locator("#choose-a").click()
    counted(page, 1)


def test_not_this_prompt_again(guest: Guest, stored: Stored) -> None:
    page = guest()
    before = page.locator("#prompt h1").inner_text()
    unwanted = (
        "SELECT p.text FROM unwanted_prompts n JOIN prompts p ON p.id = n.prompt_id"
        " JOIN users u ON u.id = n.user_id WHERE u.username = ?"
    )
    page.keyboard.press("n")
    expect(page.locator("#saved")).to_contain_text("not get this prompt again")
    expect(page.locator("#prompt h1")).not_to_have_text(before)
    settled(page)
    name = name_of(page)
    assert len(stored.rows(unwanted, name)) == 1
    page.keyboard.press("u")
    expect(page.locator("#prompt h1")).to_have_text(before, use_inner_text=True)
    assert stored.rows(unwanted, name) == []


def test_topics_one_likes(guest: Guest, stored: Stored) -> None:
    """The second is ticked before the first is kept, as by a quick hand on a slow line."""
    page = guest()
    page.get_by_role("button", name="Topics").click()
    held: list[Route] = []

    def hold_the_first(route: Route) -> None:
        if not held and _sends(route.request, '"Nature"'):
            held.append(route)
        else:
            route.continue_()

    page.route("**/gradio_api/run/**", hold_the_first)
    with page.expect_request(lambda request: _sends(request, '"Nature"')):
        page.get_by_label("Nature").check()
    page.get_by_label("Travel").check()
    with page.expect_response(lambda answer: _sends(answer.request, '"Travel"')):
        held[0].continue_()
    page.get_by_role("button", name="Done").click()
    expect(page.locator("#topics")).to_have_count(0)
    liked = stored.rows("SELECT liked_topics FROM users WHERE username = ?", name_of(page))
    assert liked == [('["Nature", "Travel"]',)]
    page.reload()
    settled(page)
    page.get_by_role("button", name="Topics").click()
    expect(page.get_by_label("Nature")).to_be_checked()
    expect(page.get_by_label("History")).not_to_be_checked()


def _sends(request: Request, text: str) -> bool:
    return text in (request.post_data or "")


def test_thirty_choices_by_keyboard_alone(guest: Guest, stored: Stored) -> None:
    page = guest()
    keys = ("1", "4", "2", "Shift+Digit4", "3")
    for number in range(30):
        page.keyboard.press(keys[number % len(keys)])
        expect(page.locator("#count")).to_contain_text(f"{number + 1} of 20")
        expect(page.locator("#bar[aria-disabled]")).to_have_count(0)
        settled(page)
    expect(page.locator("#count")).to_have_text("30 of 20 today: done!")
    standing = stored.standing(name_of(page))
    expected = [("a", 1), ("b", 1), ("tie", None), ("b", 2), ("both_bad", None)] * 6
    assert [(verdict, strength) for verdict, strength, _ in standing] == expected


def test_the_network_goes_and_comes_back(guest: Guest, stored: Stored) -> None:
    page = guest()
    name = name_of(page)
    before = page.locator("#prompt h1").inner_text()
    page.context.set_offline(True)
    page.keyboard.press("Shift+Digit4")
    expect(page.locator("#connection")).to_contain_text("Your choice is kept")
    expect(page.locator("#prompt h1")).to_have_text(before, use_inner_text=True)
    assert stored.standing(name) == []
    page.context.set_offline(False)
    expect(page.locator("#saved")).to_contain_text("from before was saved")
    counted(page, 1)
    expect(page.locator("#connection:not(:empty)")).to_have_count(0)
    expect(page.locator("#prompt h1")).not_to_have_text(before)
    assert stored.standing(name) == [("b", 2, None)]


def test_a_session_that_ended_in_mid_choice(
    app: RunningApp, stored: Stored, new_page: Callable[..., Page]
) -> None:
    page = new_page(viewport=DESKTOP)
    page.goto(f"{app.address}/signup")
    _fill(page, "paula")
    settled(page)
    before = page.locator("#prompt h1").inner_text()

    def only_what_is_sent(route: Route) -> None:
        # The status line asks without sending anything, and would find the session gone first.
        sent: Any = route.request.post_data_json
        if sent["data"]:
            route.continue_()

    page.route("**/gradio_api/run/**", only_what_is_sent)
    page.context.clear_cookies()
    page.keyboard.press("1")
    expect(page).to_have_url(re.compile(r"/login$"))
    assert stored.standing("paula") == []
    page.unroute_all()
    _fill(page, "paula")
    expect(page.locator("#saved")).to_contain_text("from before was saved")
    counted(page, 1)
    expect(page.locator("#prompt h1")).not_to_have_text(before)
    page.reload()  # nothing is sent twice
    counted(page, 1)
    assert stored.standing("paula") == [("a", 1, None)]


def _fill(page: Page, name: str) -> None:
    page.locator("input[name=username]").fill(name)
    page.locator("input[name=password]").fill(GOOD)
    page.locator("input[name=password]").press("Enter")


def test_the_back_button(guest: Guest, stored: Stored) -> None:
    page = guest()
    name = name_of(page)
    page.locator("#choose-a").click()
    counted(page, 1)
    shown = page.locator("#prompt h1").inner_text()
    page.get_by_role("link", name="Guide").click()
    expect(page).to_have_url(re.compile("/guide$"))
    page.go_back()
    settled(page)
    expect(page.locator("#prompt h1")).to_have_text(shown, use_inner_text=True)
    page.locator("#choose-b").click()
    counted(page, 2)
    assert [verdict for verdict, _, _ in stored.standing(name)] == ["a", "b"]
