"""A pair that is written while the user watches: live text, nothing to choose yet."""

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
from tests.ui.conftest import DESKTOP, counted, settled

# The app runs in this very process: what Gradio 6.31 asks of pandas 3 is not ours to mend.
pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:gradio.queueing"),
]

WORD_S = 0.04


@pytest.fixture
def slow_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The app on an engine that takes its time, without prefetching."""
    monkeypatch.setattr(assembly, "EchoEngine", functools.partial(EchoEngine, word_delay_s=WORD_S))
    settings = Settings.model_validate({"engine": "echo", "prefetch": 0, "data_dir": tmp_path})
    with ExitStack() as closing:
        data = startup.prepare_data_dir(settings.data_dir)
        database = startup.open_database(settings.resolved_database_url)
        closing.callback(database.close)
        ground = assembly.Ground(
            settings=settings,
            data=data,
            database=database,
            announce=lambda phase: None,
            closing=closing,
        )
        server = uvicorn.Server(
            uvicorn.Config(assembly.build(ground), log_level="warning", timeout_graceful_shutdown=1)
        )
        listening = startup.listen("127.0.0.1", 0)
        closing.callback(listening.close)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield "http://{}:{}".format(*listening.getsockname()[:2])
        server.should_exit = True
        thread.join()


def test_nothing_can_be_chosen_before_both_are_there(
    slow_address: str, new_page: Callable[..., Page]
) -> None:
    page = new_page(viewport=DESKTOP)
    page.goto(f"{slow_address}/login")
    page.get_by_role("button", name="Try it as a guest").click()

    for choices in (0, 1):
        expect(page.locator("#response-a p").first).to_be_visible()
        beginning = page.locator("#response-a").inner_text()
        expect(page.locator("#choose-a")).to_be_disabled()
        expect(page.locator("#card-a .writing")).not_to_have_css("opacity", "0")
        page.keyboard.press("1")
        height = page.locator("#verdicts").bounding_box()
        expect(page.locator("#choose-a")).to_be_enabled(timeout=30_000)
        counted(page, choices)
        assert page.locator("#response-a").inner_text().startswith(beginning.rstrip())
        assert page.locator("#verdicts").bounding_box() == height, "the bar moved"
        expect(page.locator("#card-a .writing")).to_have_css("opacity", "0")
        settled(page)
        if not choices:
            prompt = page.locator("#prompt h1").inner_text()
            page.keyboard.press("1")
            expect(page.locator("#prompt h1")).not_to_have_text(prompt)
