"""The desk on the embedded model: where a pair is ready, the answer to a key brings it along.

How long that takes is the benchmark's to say (`key_to_next_ms_p95_embedded`): model, server and
browser share whatever cores the tests are given.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from benchmarks.desk import choose, sign_in, wait_for_pair
from dev.running import RunningApp
from tests.ui.conftest import DESKTOP

pytestmark = [pytest.mark.browser, pytest.mark.embedded]

KEYS = 5


def test_a_key_brings_the_next_pair_at_once(tmp_path: Path, new_page: Callable[..., Page]) -> None:
    short = {"max_new_tokens": "24", "trainer": "false", "repeat_share": "0"}
    queued: list[str] = []
    with RunningApp(tmp_path / "data", **short) as app:
        app.wait_ready()
        page = new_page(viewport=DESKTOP)
        sign_in(page, app)
        wait_for_pair(page, app.data)
        page.on("request", lambda request: queued.append(request.url))
        pressed, _ = choose(page, KEYS, lambda: wait_for_pair(page, app.data))
        expect(page.locator("#count")).to_contain_text(f"{KEYS} of 20")
        page.close()
    assert len(pressed) == KEYS
    # No pair was asked for a second time, to be written while somebody waits.
    assert [url for url in queued if "queue/join" in url] == []
