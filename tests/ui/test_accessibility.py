"""axe finds nothing serious: every page, light and dark, on a desktop and a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from dev.accessibility import DOORS, ROOMS, open_page, serious_in_every_look
from dev.running import RunningApp
from dev.waiting import wait_until_it_listens
from tests.conftest import where_it_is_morning
from tests.ui.conftest import Stored, counted, enter

pytestmark = pytest.mark.browser

NewPage = Callable[..., Page]


@pytest.fixture(scope="module")
def admin(app: RunningApp, browser: Browser) -> Iterator[Page]:
    """Somebody whom every page is open to, with one choice behind them."""
    page = browser.new_page(timezone_id=where_it_is_morning())
    enter(page, app.address)
    page.keyboard.press("1")
    counted(page, 1)
    Stored(app.data / "attune.db").rows(
        "UPDATE users SET role = 'admin' WHERE id = (SELECT max(id) FROM users)"
    )
    yield page
    page.close()


def test_what_has_no_name_is_found(new_page: NewPage) -> None:
    page = new_page()
    page.set_content("<html lang=en><title>x</title><main><h1>x</h1><button></button></main>")
    found = serious_in_every_look(page)
    assert found[0] == "desktop, light: button-name (critical) at button"
    assert len(found) == 4


@pytest.mark.parametrize("path", DOORS)
def test_a_door(app: RunningApp, new_page: NewPage, path: str) -> None:
    page = new_page()
    open_page(page, app.address, path, DOORS[path])
    assert serious_in_every_look(page) == []


@pytest.mark.parametrize("path", ROOMS)
def test_a_room(app: RunningApp, admin: Page, path: str) -> None:
    open_page(admin, app.address, path, ROOMS[path])
    assert serious_in_every_look(admin) == []


def test_what_comes_and_opens_on_the_compare_page(app: RunningApp, admin: Page) -> None:
    open_page(admin, app.address, "/", ROOMS["/"])
    wait_until_it_listens(admin)
    admin.keyboard.press("4")
    for opens, opened in (
        ("#reason-other", "#reason-text"),
        ("#topics-open", "#topics"),
        ("#ask-open", "#own-text"),
    ):
        admin.locator(opens).click()
        expect(admin.locator(opened)).to_be_visible()
    assert serious_in_every_look(admin) == []


def test_the_help(app: RunningApp, admin: Page) -> None:
    open_page(admin, app.address, "/", ROOMS["/"])
    admin.locator("#help-open").click()
    expect(admin.locator("#help")).to_be_visible()
    assert serious_in_every_look(admin) == []


def test_code_that_is_too_wide_is_scrolled_with_keys(app: RunningApp, admin: Page) -> None:
    open_page(admin, app.address, "/", ROOMS["/"])
    write = "text => { document.querySelector('#response-a .md').innerHTML = text; }"
    admin.evaluate(write, f"<pre><code>{'wide ' * 99}</code></pre>")
    code = admin.locator("#response-a pre")
    expect(code).to_have_attribute("tabindex", "0")
    assert serious_in_every_look(admin) == []
    code.focus()
    admin.keyboard.press("ArrowRight")
    admin.wait_for_function("document.querySelector('#response-a pre').scrollLeft > 0")
    admin.evaluate(write, "<pre><code>short</code></pre>")
    expect(code).not_to_have_attribute("tabindex", "0")
