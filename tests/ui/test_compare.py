"""The compare page as a person meets it: mouse, keys, tabs, phones, mistakes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Request, expect

from dev.running import RunningApp
from tests.conftest import where_it_is_morning
from tests.ui.conftest import DESKTOP, PHONE, Stored, counted, name_of, settled, sign_in

pytestmark = pytest.mark.browser

Guest = Callable[..., Page]
Added = Callable[[], list[tuple[str, int | None, str | None]]]
HOSTILE = (
    '<script>window.ran="script"</script> <img src="x" onerror="window.ran=\'onerror\'">'
    " ${window.ran='template'} ${7*7} ![pixel](https://example.org/pixel.png)"
    ' [link](javascript:window.ran="link") <iframe src="https://example.org"></iframe>'
)


def prompt(page: Page) -> Locator:
    return page.locator("#prompt h1")


@pytest.fixture(scope="module")
def seat(app: RunningApp, browser: Browser) -> Iterator[Page]:
    """One guest's desk for all tests of a single choice: a page takes seconds to load."""
    failures: list[str] = []
    page = browser.new_page(viewport=DESKTOP, timezone_id=where_it_is_morning())
    page.on("pageerror", lambda error: failures.append(str(error)))
    sign_in(page, app.address)
    page.goto(app.address)
    yield page
    page.close()
    assert failures == []


@pytest.fixture
def desk(seat: Page) -> Page:
    """The seat when it takes a choice."""
    settled(seat)
    expect(seat.locator("#bar[aria-disabled]")).to_have_count(0)
    return seat


@pytest.fixture
def added(desk: Page, stored: Stored) -> Added:
    """The choices made at this desk since the test began."""
    name = name_of(desk)
    before = stored.standing(name)

    def since() -> list[tuple[str, int | None, str | None]]:
        now = stored.standing(name)
        assert now[: len(before)] == before
        return now[len(before) :]

    return since


@pytest.mark.parametrize("verdict", ["a", "tie", "both_bad", "b", "skip"])
def test_a_click_is_a_choice(desk: Page, added: Added, verdict: str) -> None:
    before = prompt(desk).inner_text()
    desk.locator(f"#choose-{verdict}").click()
    expect(prompt(desk)).not_to_have_text(before)
    strength = 1 if verdict in {"a", "b"} else None
    assert added() == [(verdict, strength, None)]


@pytest.mark.parametrize(
    ("key", "choice"),
    [
        ("1", ("a", 1)),
        ("2", ("tie", None)),
        ("3", ("both_bad", None)),
        ("4", ("b", 1)),
        ("Shift+Digit1", ("a", 2)),
        ("Shift+Digit2", ("tie", None)),
        ("Shift+Digit4", ("b", 2)),
        ("s", ("skip", None)),
    ],
)
def test_a_key_is_a_choice(
    desk: Page, added: Added, key: str, choice: tuple[str, int | None]
) -> None:
    before = prompt(desk).inner_text()
    desk.keyboard.press(key)
    expect(prompt(desk)).not_to_have_text(before)
    assert added() == [(*choice, None)]


def test_a_shift_click_is_clear_and_the_next_plain_click_is_not(
    guest: Guest, stored: Stored
) -> None:
    page = guest()
    page.locator("#choose-b").click(modifiers=["Shift"])
    counted(page, 1)
    page.locator("#choose-b").click()
    counted(page, 2)
    assert stored.standing(name_of(page)) == [("b", 2, None), ("b", 1, None)]


@pytest.mark.parametrize(
    "key", ["Control+1", "Alt+1", "Meta+1", "Control+s", "Control+u", "Shift+S", "5", "q"]
)
def test_other_keys_are_not_ours(desk: Page, added: Added, key: str) -> None:
    before = prompt(desk).inner_text()
    # Not keyboard.press: the browser itself would act on some of these.
    modifiers = {name: key.startswith(name) for name in ("Control", "Alt", "Meta", "Shift")}
    letter = key.rpartition("+")[2]
    desk.evaluate(
        "([key, c, a, m, s]) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key,"
        " code: /\\d/.test(key) ? `Digit${key}` : `Key${key.toUpperCase()}`, ctrlKey: c,"
        " altKey: a, metaKey: m, shiftKey: s, bubbles: true, cancelable: true}))",
        [letter, *modifiers.values()],
    )
    _choose_and_see_another(desk, before)
    assert added() == [("tie", None, None)]


@pytest.mark.parametrize("composing", [{"isComposing": True}, {"keyCode": 229}, {"repeat": True}])
def test_composition_and_key_repeat_are_not_choices(
    desk: Page, added: Added, composing: dict[str, Any]
) -> None:
    before = prompt(desk).inner_text()
    desk.evaluate(
        "(more) => document.body.dispatchEvent(new KeyboardEvent('keydown',"
        " {key: '1', code: 'Digit1', bubbles: true, ...more}))",
        composing,
    )
    _choose_and_see_another(desk, before)
    assert added() == [("tie", None, None)]


def _choose_and_see_another(page: Page, before: str) -> None:
    """The pair still stands, until a real choice."""
    expect(prompt(page)).to_have_text(before, use_inner_text=True)
    page.locator("#choose-tie").click()
    expect(prompt(page)).not_to_have_text(before)


def test_keys_while_typing_are_letters(guest: Guest, stored: Stored) -> None:
    page = guest()
    before = prompt(page).inner_text()
    page.locator("#ask-open").click()
    box = page.locator("#own-text :is(textarea, input)")
    expect(box).to_be_focused()
    page.keyboard.type("1 or 2? s u 4")
    expect(box).to_have_value("1 or 2? s u 4")
    page.keyboard.press("Escape")
    expect(box).to_have_count(0)
    _choose_and_see_another(page, before)
    assert stored.standing(name_of(page)) == [("tie", None, None)]


def test_a_double_click_is_one_choice(guest: Guest, stored: Stored) -> None:
    page = guest()
    page.locator("#choose-a").dblclick()
    counted(page, 1)
    page.locator("#choose-b").click()
    counted(page, 2)
    verdicts = [verdict for verdict, _, _ in stored.standing(name_of(page))]
    assert verdicts == ["a", "b"]


def test_saved_and_why(guest: Guest, stored: Stored) -> None:
    page = guest()
    expect(page.locator("#why")).to_have_count(0)
    page.locator("#choose-a").click()
    expect(page.locator("#saved")).to_have_text("Saved.")
    page.get_by_role("button", name="clearer").click()
    expect(page.get_by_role("button", name="clearer")).to_be_disabled()
    page.get_by_role("button", name="shorter").click()
    expect(page.get_by_role("button", name="shorter")).to_be_disabled()
    expect(page.get_by_role("button", name="clearer")).to_be_enabled()
    assert stored.standing(name_of(page)) == [("a", 1, "shorter")]
    settled(page)
    page.locator("#choose-tie").click()  # no reason is asked for a tie
    counted(page, 2)
    expect(page.locator("#why")).to_have_count(0)


def test_undo_brings_the_pair_back(guest: Guest, stored: Stored) -> None:
    page = guest()
    before = prompt(page).inner_text()
    text = page.locator("#response-a").inner_text()
    page.keyboard.press("1")
    counted(page, 1)
    page.keyboard.press("u")
    counted(page, 0)
    expect(prompt(page)).to_have_text(before, use_inner_text=True)
    expect(page.locator("#response-a")).to_have_text(text, use_inner_text=True)
    page.locator("#undo").click()
    expect(page.locator("#notice")).to_contain_text("nothing to undo")
    settled(page)
    page.locator("#choose-b").click()
    counted(page, 1)
    assert stored.standing(name_of(page)) == [("b", 1, None)]


def test_a_reload_shows_the_same_pair(guest: Guest) -> None:
    page = guest()
    shown = [page.locator(f"#{part}").inner_text() for part in ("prompt", "pair")]
    page.reload()
    settled(page)
    assert [page.locator(f"#{part}").inner_text() for part in ("prompt", "pair")] == shown


def test_two_tabs_and_a_stale_pair(guest: Guest, stored: Stored) -> None:
    first = guest()
    second = first.context.new_page()
    second.goto(first.url)
    settled(second)
    expect(prompt(second)).to_have_text(prompt(first).inner_text(), use_inner_text=True)
    first.locator("#choose-a").click()
    counted(first, 1)
    second.locator("#choose-b").click()
    expect(second.locator("#notice")).to_contain_text("answered this pair already")
    expect(prompt(second)).to_have_text(prompt(first).inner_text(), use_inner_text=True)
    settled(second)
    second.locator("#choose-b").click()
    counted(second, 2)
    verdicts = [verdict for verdict, _, _ in stored.standing(name_of(first))]
    assert verdicts == ["a", "b"]


def test_an_own_prompt(guest: Guest, stored: Stored) -> None:
    page = guest()
    banked = prompt(page).inner_text()
    page.locator("#ask-open").click()
    box = page.locator("#own-text :is(textarea, input)")
    own = "What is 3 < 4 & *why*?  ${7*7} <b>#1</b>"
    box.fill(own)
    box.press("Enter")
    expect(prompt(page)).to_have_text(own)
    expect(box).to_have_count(0)
    settled(page)
    page.locator("#choose-a").click()
    expect(prompt(page)).to_have_text(banked, use_inner_text=True)
    counted(page, 1)
    assert stored.standing(name_of(page)) == [("a", 1, None)]


def test_an_empty_own_prompt(guest: Guest) -> None:
    page = guest()
    banked = prompt(page).inner_text()
    page.locator("#ask-open").click()
    page.locator("#own-text :is(textarea, input)").press("Enter")
    expect(page.locator("#notice p")).to_be_visible()
    expect(page.locator("#own-text")).to_be_visible()
    expect(prompt(page)).to_have_text(banked, use_inner_text=True)
    settled(page)


def test_an_own_prompt_that_is_too_long(guest: Guest) -> None:
    page = guest()
    banked = prompt(page).inner_text()
    page.locator("#ask-open").click()
    box = page.locator("#own-text :is(textarea, input)")
    box.fill("x" * 2001)
    page.locator("#own-send").click()
    expect(page.locator("#notice")).to_contain_text("at most 2,000 fit")
    expect(box).to_have_value("x" * 2001)
    page.locator("#own-cancel").click()
    expect(box).to_have_count(0)
    expect(prompt(page)).to_have_text(banked, use_inner_text=True)
    settled(page)


def test_model_text_is_data(guest: Guest, stored: Stored) -> None:
    page = guest()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    name = name_of(page)
    stored.rows(
        "UPDATE responses SET text = ? WHERE comparison_id IN (SELECT c.id FROM comparisons c"
        " JOIN users u ON u.id = c.user_id WHERE u.username = ?)",
        HOSTILE,
        name,
    )
    page.reload()
    settled(page)
    for side in "ab":
        expect(page.locator(f"#response-{side}")).to_contain_text("${7*7}")
        expect(page.locator(f"#response-{side}")).to_contain_text("<script>")
    assert page.locator("#pair :is(img, iframe, script)").count() == 0
    assert page.locator('#pair a[href^="javascript"]').count() == 0
    assert page.evaluate("window.ran") is None
    assert not [url for url in asked if "example.org" in url or url.endswith("/x")]


def test_responses_are_markdown(guest: Guest, stored: Stored) -> None:
    page = guest()
    stored.rows(
        "UPDATE responses SET text = ? WHERE side = 'A' AND comparison_id IN (SELECT c.id FROM"
        " comparisons c JOIN users u ON u.id = c.user_id WHERE u.username = ?)",
        "1. one\n2. **two**\n\n```python\nif a < b:\n    pass\n```\n\n$$x^2$$",
        name_of(page),
    )
    page.reload()
    settled(page)
    expect(page.locator("#response-a li")).to_have_count(2)
    expect(page.locator("#response-a pre")).to_contain_text("if a < b:")
    expect(page.locator("#response-a .katex-display")).to_have_count(1)


def test_what_made_a_response_is_not_told_before_the_choice(guest: Guest) -> None:
    page = guest()
    told: list[str] = []
    page.on("requestfinished", lambda request: told.append(_answer_to(request)))
    page.reload()
    settled(page)
    page.locator("#choose-a").click()
    counted(page, 1)  # this study tells nothing afterwards either
    answers = "".join(told)
    assert page.locator("#prompt h1").inner_text() in unescape(answers)
    assert not re.search(r"\\?\"(personal|generic|base|condition|version_id|seed)\\?\"", answers)


def _answer_to(request: Request) -> str:
    response = request.response()
    return response.text() if response is not None and "/gradio_api/" in request.url else ""


def test_who_wants_no_movement_sees_none(guest: Guest) -> None:
    moving = "getComputedStyle(document.getElementById('choose-a')).transitionDuration"
    assert float(guest().evaluate(moving).split("s")[0]) > 0
    assert float(guest(reduced_motion="reduce").evaluate(moving).split("s")[0]) < 0.01


def test_someone_elses_comparison_is_not_ours_to_judge(guest: Guest, stored: Stored) -> None:
    """A forged request for another guest's pair: a friendly message, nothing stored."""
    owner, thief = guest(), guest()
    mine = "SELECT c.id FROM comparisons c JOIN users u ON u.id = c.user_id WHERE u.username = ?"
    stolen = stored.rows(f"{mine} AND c.shown_at IS NOT NULL", name_of(owner))[0][0]

    def forge(route: Any) -> None:
        body = route.request.post_data_json
        body["data"] = [stolen, None, 1]
        route.continue_(post_data=body)

    thief.route("**/gradio_api/run/**", forge)
    thief.locator("#choose-a").click()
    expect(thief.locator("#notice")).to_contain_text("not yours")
    assert stored.standing(name_of(owner)) == []
    assert stored.standing(name_of(thief)) == []


def test_signed_out_elsewhere_leads_to_the_door(guest: Guest, stored: Stored) -> None:
    page = guest()
    name = name_of(page)
    page.context.clear_cookies()
    # The status line may find out first and take the button away.
    page.evaluate("document.getElementById('choose-a')?.click()")
    expect(page).to_have_url(re.compile(r"/login$"))
    assert stored.standing(name) == []


def test_the_page_looks_as_designed(guest: Guest, picture: Callable[..., None]) -> None:
    looks: dict[str, dict[str, Any]] = {
        "compare-light": {"color_scheme": "light"},
        "compare-dark": {"color_scheme": "dark"},
        "compare-phone": {"viewport": PHONE, "has_touch": True},
    }
    for name, options in looks.items():
        page = guest(**options)
        page.locator("#choose-a").click()
        counted(page, 1)
        page.mouse.move(0, 0)
        cards = [page.locator(f"#card-{side}").bounding_box() for side in "ab"]
        assert cards[0] is not None
        assert cards[1] is not None
        assert cards[0]["width"] == cards[1]["width"]
        if name != "compare-phone":
            assert cards[0]["height"] == cards[1]["height"]
        wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
        assert not wide, f"{name} scrolls sideways"
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 19, 26)" if name == "compare-dark" else "rgb(247, 246, 242)")
        expect(page.locator("footer")).to_have_count(0)
        picture(page, name)


def test_the_guide(app: RunningApp, new_page: Callable[..., Page]) -> None:
    page = new_page(viewport={"width": 1280, "height": 760})
    page.goto(f"{app.address}/guide")
    expect(page.get_by_role("heading", name="Guide", level=1)).to_be_visible()
    expect(page.get_by_role("heading", name="What you do")).to_be_visible()
    page.get_by_role("link", name="Compare").click()
    expect(page.get_by_role("button", name="Try it as a guest")).to_be_visible()
