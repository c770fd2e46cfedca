"""A pair that is written while the user watches: live text, a choice before its end, a stop."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn
from playwright.sync_api import Page, expect

import assembly
from backend import startup
from backend.engines.echo import EchoEngine
from backend.settings import Settings
from tests.ui.conftest import DESKTOP, Stored, settled
from ui.language import Languages

# The app runs in this very process: what Gradio 6.31 asks of pandas 3 is not ours to mend.
pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"),
]

# For tests that do not wait for the end: it must not come first on a busy machine either.
slowly = pytest.mark.parametrize("word_s", [0.6])


@pytest.fixture
def word_s() -> float:
    return 0.15


@pytest.fixture
def slow_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word_s: float) -> Iterator[str]:
    """The app on an engine that takes its time, without prefetching."""
    monkeypatch.setattr(assembly, "EchoEngine", functools.partial(EchoEngine, word_delay_s=word_s))
    settings = Settings.model_validate(
        {"engine": "echo", "prefetch": 0, "reveal": True, "data_dir": tmp_path}
    )
    with ExitStack() as closing:
        data = startup.prepare_data_dir(settings.data_dir)
        database = startup.open_database(settings.resolved_database_url)
        closing.callback(database.close)
        ground = assembly.Ground(
            settings=settings,
            data=data,
            database=database,
            languages=Languages(),
            announce=lambda phase: None,
            closing=closing,
        )
        web, _ = assembly.build(ground)
        server = uvicorn.Server(
            uvicorn.Config(web, log_level="warning", timeout_graceful_shutdown=1)
        )
        listening = startup.listen("127.0.0.1", 0)
        closing.callback(listening.close)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield "http://{}:{}".format(*listening.getsockname()[:2])
        server.should_exit = True
        thread.join()


@pytest.fixture
def slow(slow_address: str, new_page: Callable[..., Page]) -> Page:
    """A guest who watches a first pair being written."""
    page = new_page(viewport=DESKTOP)
    page.goto(f"{slow_address}/login")
    page.get_by_role("button", name="Try it as a guest").click()
    return page


@pytest.mark.parametrize("word_s", [0.3])  # what is seen on the way must not be over before
def test_a_pair_is_watched_until_it_is_there(slow: Page) -> None:
    expect(slow.locator("#response-a p").first).to_be_visible()
    beginning = slow.locator("#response-a").inner_text()
    expect(slow.locator("#undo")).to_be_disabled()
    expect(slow.locator("#progress")).to_contain_text("Being written")
    expect(slow.locator("#card-a .writing")).not_to_have_css("opacity", "0")
    height = slow.locator("#verdicts").bounding_box()
    expect(slow.locator("#undo")).to_be_enabled(timeout=60_000)
    assert slow.locator("#response-a").inner_text().startswith(beginning.rstrip())
    assert slow.locator("#verdicts").bounding_box() == height, "the bar moved"
    expect(slow.locator("#progress")).to_have_text("")
    expect(slow.locator("#stop")).to_have_count(0)
    expect(slow.locator("#card-a .writing")).to_have_css("opacity", "0")


@slowly
def test_a_choice_may_be_made_while_both_are_written(slow: Page) -> None:
    for choices in (1, 2):
        settled(slow)
        expect(slow.locator("#stop")).to_be_visible()
        prompt = slow.locator("#prompt h1").inner_text()
        expect(slow.locator("#bar[aria-disabled]")).to_have_count(0)
        slow.keyboard.press("1")
        expect(slow.locator("#count")).to_have_text(f"{choices} of 20 today")
        expect(slow.locator("#saved")).to_contain_text("made for")  # this study tells
        expect(slow.locator("#prompt h1")).not_to_have_text(prompt)
        expect(slow.locator("#prompt h1")).to_be_visible()


@slowly
def test_stopping_keeps_the_texts_and_lets_choose(slow: Page, tmp_path: Path) -> None:
    slow.locator("#stop").click()
    expect(slow.locator("#undo")).to_be_enabled()
    expect(slow.locator("#stop")).to_have_count(0)
    texts = Stored(tmp_path / "attune.db").rows(
        "SELECT r.text FROM responses r JOIN comparisons c ON c.id = r.comparison_id"
        " WHERE c.stopped_at IS NOT NULL ORDER BY r.side"
    )
    prompt = slow.locator("#prompt h1").inner_text()
    for again in (False, True):
        if again:
            slow.reload()
            expect(slow.locator("#undo")).to_be_enabled()
        for side, (text,) in zip("ab", texts, strict=True):
            expect(slow.locator(f"#response-{side}")).to_have_text(text)
    slow.locator("#choose-b").click()
    expect(slow.locator("#count")).to_have_text("1 of 20 today")
    expect(slow.locator("#prompt h1")).not_to_have_text(prompt)
    expect(slow.locator("#earlier")).to_have_text("")


def test_what_is_said_outlasts_the_words_that_come_in(slow: Page) -> None:
    expect(slow.locator("#undo")).to_be_enabled(timeout=60_000)
    second = slow.context.new_page()
    second.goto(slow.url)
    expect(second.locator("#undo")).to_be_enabled()
    slow.locator("#choose-a").click()
    expect(slow.locator("#count")).to_have_text("1 of 20 today")
    second.locator("#choose-b").click()
    expect(second.locator("#notice")).to_contain_text("answered this pair already")
    expect(second.locator("#response-b p").first).to_be_visible()
    expect(second.locator("#undo")).to_be_enabled(timeout=60_000)
    expect(second.locator("#notice")).to_contain_text("answered this pair already")
    second.locator("#choose-b").click()
    expect(second.locator("#notice")).to_have_text("")


def test_a_reload_while_it_is_written_goes_on_with_the_same_words(slow: Page) -> None:
    expect(slow.locator("#response-a p").first).to_be_visible()
    prompt = slow.locator("#prompt h1").inner_text()
    beginning = slow.locator("#response-a").inner_text()
    slow.reload()
    expect(slow.locator("#response-a")).to_contain_text(beginning.strip(), use_inner_text=True)
    expect(slow.locator("#prompt h1")).to_have_text(prompt, use_inner_text=True)
    expect(slow.locator("#undo")).to_be_enabled(timeout=60_000)
    slow.locator("#choose-a").click()
    expect(slow.locator("#count")).to_have_text("1 of 20 today")


def test_the_network_goes_while_it_is_written(slow: Page) -> None:
    expect(slow.locator("#response-a p").first).to_be_visible()
    prompt = slow.locator("#prompt h1").inner_text()
    slow.context.set_offline(True)
    expect(slow.locator("#connection")).to_contain_text("cannot be reached")
    slow.context.set_offline(False)
    expect(slow.locator("#connection:not(:empty)")).to_have_count(0)
    expect(slow.locator("#undo")).to_be_enabled(timeout=60_000)
    expect(slow.locator("#prompt h1")).to_have_text(prompt, use_inner_text=True)
    expect(slow.locator("#progress")).to_have_text("")
    slow.locator("#choose-a").click()
    expect(slow.locator("#count")).to_have_text("1 of 20 today")


@slowly
def test_a_choice_on_words_that_still_come_in_is_not_lost_without_a_word(
    slow: Page, tmp_path: Path
) -> None:
    settled(slow)
    expect(slow.locator("#stop")).to_be_visible()
    expect(slow.locator("#bar[aria-disabled]")).to_have_count(0)
    slow.context.set_offline(True)
    slow.keyboard.press("1")
    line = slow.locator("#connection")
    expect(line).to_have_text("Your choice was not sent. Please choose again.")
    with slow.expect_navigation():  # Gradio loads a page anew whose stream broke
        slow.context.set_offline(False)
    expect(line).to_have_text("Your choice was not sent. Please choose again.")
    expect(slow.locator("#bar[aria-disabled]")).to_have_count(0)
    settled(slow)
    slow.keyboard.press("4")
    expect(slow.locator("#count")).to_have_text("1 of 20 today")
    expect(line).to_have_text("")
    verdicts = Stored(tmp_path / "attune.db").rows("SELECT verdict FROM choices")
    assert verdicts == [("b",)]


def test_an_own_question_while_another_is_written(slow: Page) -> None:
    settled(slow)
    slow.locator("#ask-open").click()
    box = slow.locator("#own-text :is(textarea, input)")
    box.fill("What is a tree?")
    box.press("Enter")
    expect(slow.locator("#prompt h1")).to_have_text("What is a tree?")
    expect(slow.locator("#undo")).to_be_enabled(timeout=60_000)
    expect(slow.locator("#prompt h1")).to_have_text("What is a tree?")
