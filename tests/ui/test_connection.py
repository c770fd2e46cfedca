"""An open page outlives the server: it says so, waits, and goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import pytest
from playwright.sync_api import Page, Route, expect

from backend import startup
from backend.errors import ConfigurationError
from dev.running import RunningApp
from tests.ui.conftest import DESKTOP, Stored, answer_to_click, counted, enter, name_of, settled

pytestmark = pytest.mark.browser


def _kept_port() -> int:
    """A free port that nobody is given who asks for any: it is free again after a kill."""
    for port in range(18_000, 18_100):
        try:
            startup.listen("127.0.0.1", port).close()
        except ConfigurationError:
            continue
        return port
    raise AssertionError("a hundred ports are taken")


def test_kill_and_restart_under_an_open_page(tmp_path: Path, new_page: Callable[..., Page]) -> None:
    page = new_page(viewport=DESKTOP)
    data = tmp_path / "data"
    port = str(_kept_port())
    with RunningApp(data, engine="echo", port=port) as app:
        app.wait_ready()
        enter(page, app.address)
        name = name_of(page)
        page.locator("#choose-a").click()
        counted(page, 1)
        shown = page.locator("#prompt").inner_text()
        app.kill()
        expect(page.locator("#connection")).to_contain_text("cannot be reached")
    with RunningApp(data, engine="echo", port=port) as app:
        app.wait_ready()
        expect(page.locator("#connection:not(:empty)")).to_have_count(0)
        expect(page.locator("#prompt")).to_have_text(shown, use_inner_text=True)
        page.locator("#choose-b").click()
        counted(page, 2)
    verdicts = [verdict for verdict, _, _ in Stored(data / "attune.db").standing(name)]
    assert verdicts == ["a", "b"]


def test_a_page_that_got_no_pair_asks_again(guest: Callable[..., Page]) -> None:
    page = guest("/account")
    asked: list[Route] = []

    def lose_the_first(route: Route) -> None:
        asked.append(route)
        if len(asked) == 1:
            route.abort()
        else:
            route.continue_()

    page.route("**/gradio_api/queue/join**", lose_the_first)
    page.goto(urljoin(page.url, "/"))
    settled(page)
    expect(page.locator("#prompt h1")).to_be_visible()
    expect(page.locator("#connection:not(:empty)")).to_have_count(0)


def test_a_page_that_got_a_fault_in_place_of_a_pair_asks_again(guest: Callable[..., Page]) -> None:
    page = guest("/account")
    page.clock.install()
    page.route("**/gradio_api/queue/join**", lambda route: route.fulfill(status=500, json={}))
    page.goto(urljoin(page.url, "/"))
    expect(page.locator("#connection")).to_contain_text("Something went wrong on our side")
    page.unroute_all()
    page.clock.run_for(10_000)
    settled(page)


def test_a_fault_of_ours_is_owned_up_to(guest: Callable[..., Page]) -> None:
    page = guest()

    def fail(route: Route) -> None:
        route.fulfill(status=500, json={"error": None})

    page.route("**/gradio_api/run/**", fail)
    assert answer_to_click(page, "#choose-a").status == 500
    expect(page.locator("#connection")).to_contain_text("Something went wrong on our side")
    page.unroute("**/gradio_api/run/**")
    expect(page.locator("#choose-a")).to_be_enabled()
    page.locator("#choose-a").click()
    counted(page, 1)
