"""Waiting for something to come true, for tests and benchmarks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from playwright.sync_api import Page

_POLL_S = 0.02
# The page takes no key for a moment after it has changed, and may change in several steps.
_LISTENS = """() => new Promise((done) => {
  let quiet = 0;
  const look = () => {
    quiet = document.querySelector("#bar[aria-disabled]") ? 0 : quiet + 1;
    if (quiet > 10) done(); else setTimeout(look, 50);
  };
  look();
})"""


def wait_for(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    """Ask until `condition` holds.

    Raises:
        TimeoutError: it did not within `within_s` seconds.
    """
    pause = threading.Event()
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not true within {within_s:.0f} s")
        pause.wait(_POLL_S)


def wait_until_it_listens(page: Page) -> None:
    """Wait until the compare page has taken keys and clicks for half a second in a row."""
    page.evaluate(_LISTENS)
