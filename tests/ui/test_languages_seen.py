"""Pages as somebody sees them who reads another language: nothing is left in English."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from dev.running import RunningApp
from tests.ui.conftest import DESKTOP, PHONE, settled
from ui.language import Languages

pytestmark = pytest.mark.browser

NewPage = Callable[..., Page]

PLACED = ("card-a", "card-b", "choose-a", "choose-tie", "choose-both_bad", "choose-b")

SERVER_PAGES = (
    "/login",
    "/signup",
    "/welcome",
    "/welcome?step=2",
    "/welcome?step=2&answer=a",
    "/welcome?step=3",
    "/guide",
    "/account",
    "/account?leaving=1",
    "/taste/erase",
    "/nowhere",
)
# What stands on a page for people: texts and names, less what users and models wrote.
_TEXTS = """() => {
  const own = "#prompt, .response, #earlier, .what, #words-shown, h1 b, script, style, footer";
  const texts = [document.title];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const parent = node.parentElement;
    if (!parent.closest(own) && parent.checkVisibility()) texts.push(node.textContent);
  }
  for (const name of ["aria-label", "placeholder", "title", "alt"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) {
      if (element.checkVisibility()) texts.push(element.getAttribute(name));
    }
  }
  return texts;
}"""


def texts_of(page: Page) -> set[str]:
    """What is written on the page, without figures."""
    read = (re.sub(r"[\d\W_]+", " ", text).strip() for text in page.evaluate(_TEXTS))
    return {text for text in read if len(text) > 1}


def walk(page: Page, address: str) -> Iterator[tuple[str, set[str]]]:
    """Through all pages of somebody new; yields where and what is written there."""
    page.goto(f"{address}/login")
    yield "door", texts_of(page)
    page.locator('form[action="/guest"] button').click()
    settled(page)
    page.keyboard.press("1")
    expect(page.locator("#count")).to_contain_text("1")
    expect(page.locator("#why")).to_be_visible()
    settled(page)
    for opens, opened in (
        ("#reason-other", "#reason-text"),
        ("#topics-open", "#liked label"),
        ("#ask-open", "#own-text"),
        ("#help-open", "#help"),
    ):
        page.locator(opens).click()
        expect(page.locator(opened).first).to_be_visible()
    yield "/", texts_of(page)
    page.goto(f"{address}/taste/")
    page.locator("#past-row-0 button").click()
    expect(page.locator("#past-panel")).to_be_visible()
    page.locator("#words-edit").click()
    expect(page.locator("#words-text")).to_be_visible()
    yield "/taste/", texts_of(page)
    for path in SERVER_PAGES:
        page.goto(address + path)
        yield path, texts_of(page)


@pytest.fixture(scope="module")
def english(app: RunningApp, browser: Browser) -> dict[str, set[str]]:
    context = browser.new_context(viewport=DESKTOP, locale="en-GB")
    seen = dict(walk(context.new_page(), app.address))
    context.close()
    return seen


@pytest.mark.parametrize("code", ["de", "ja"])
def test_nothing_is_left_in_english(
    app: RunningApp, new_page: NewPage, english: dict[str, set[str]], code: str
) -> None:
    known = next(one for one in Languages().offered if one.code == code)
    page = new_page(viewport=DESKTOP, locale=code)
    for path, seen in walk(page, app.address):
        assert page.locator("html").get_attribute("lang") == code
        # The name of the product, of keys and of people; words both languages share.
        left = {
            text
            for text in seen & english[path]
            if known.text(text) == text
            and not re.fullmatch(r"attune|Attune|guest( \w+)?|Shift|Esc|Ctrl|AI|guest \w+ .*", text)
        }
        shared = {text for text in left if text in {"Name", "Version", "Admin"}}
        assert left - shared == set(), path
        assert not any("\ue000" in text or "{" in text for text in page.evaluate(_TEXTS)), path


def test_the_choice_at_the_foot_is_for_all_pages(app: RunningApp, new_page: NewPage) -> None:
    page = new_page(viewport=DESKTOP, locale="en-GB")
    page.goto(f"{app.address}/login")
    page.get_by_role("button", name="日本語").click()
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    page.locator('form[action="/guest"] button').click()
    settled(page)
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    expect(page.locator("#choose-a")).to_have_text("A のほうが良い")
    page.keyboard.press("1")
    expect(page.locator("#saved")).to_have_text("保存しました。")


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_from_right_to_left(app: RunningApp, new_page: NewPage, viewport: dict[str, int]) -> None:
    page = new_page(viewport=viewport, locale="ar")
    enter_as_guest(page, app.address)
    expect(page.locator("html")).to_have_attribute("dir", "rtl")
    boxes = {
        name: box for name in PLACED if (box := page.locator(f"#{name}").bounding_box()) is not None
    }
    assert set(boxes) == set(PLACED)
    a, b = boxes["card-a"], boxes["card-b"]
    if viewport == DESKTOP:  # A stands where reading starts, and the verdicts in the cards' order
        assert a["x"] > b["x"] + b["width"] - 1
        across = [boxes[name]["x"] for name in PLACED[2:]]
        assert across == sorted(across, reverse=True)
    else:
        assert a["y"] < b["y"]
    page.keyboard.press("1")  # the key on A's button, wherever it stands
    expect(page.locator("#why")).to_be_visible()
    settled(page)
    every_page_fits(page, app.address)


def test_long_words_fit_a_phone(
    app: RunningApp, new_page: NewPage, picture: Callable[..., None]
) -> None:
    page = new_page(viewport=PHONE, locale="de")
    enter_as_guest(page, app.address)
    page.keyboard.press("1")
    expect(page.locator("#why")).to_be_visible()
    settled(page)
    picture(page, "compare-german-phone")
    page.set_viewport_size(DESKTOP)
    picture(page, "compare-german")
    page.set_viewport_size(PHONE)
    every_page_fits(page, app.address)


def every_page_fits(page: Page, address: str) -> None:
    """Nothing stands out to a side, on the compare page as it is and on the others."""
    assert not_too_wide(page)
    for path in ("/taste/", "/account", "/guide", "/welcome", "/welcome?step=2", "/login"):
        page.goto(address + path)
        if path == "/taste/":
            expect(page.locator("#past-row-0")).to_be_visible()
        assert not_too_wide(page), path


def enter_as_guest(page: Page, address: str) -> None:
    page.goto(f"{address}/login")
    page.locator('form[action="/guest"] button').click()
    settled(page)


def not_too_wide(page: Page) -> bool:
    """Whether nothing stands out to either side."""
    wide: bool = page.evaluate(
        """() => {
          const page = document.documentElement;
          if (page.scrollWidth > innerWidth) return false;
          const inside = (box) => box.left >= -1 && box.right <= innerWidth + 1;
          const out = [...document.querySelectorAll("button, .card, nav a, h1, p")].filter(
            (one) => one.checkVisibility() && one.getClientRects().length,
          ).map((one) => one.getBoundingClientRect());
          return out.every((box) => box.width === 0 || inside(box));
        }"""
    )
    return wide
