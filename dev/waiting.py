"""Waiting for something to come true, for tests and benchmarks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_POLL_S = 0.02


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
