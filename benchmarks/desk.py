"""The desk under the hands of a quick person, measured from outside: `make bench-desk`.

Starts `python app.py` on an empty data folder with the `echo` engine, so that no model is in the
way of what the page itself takes, and drives it with Chromium: choices by keyboard, the size of a
first load, what axe-core finds. Then the same keys on the embedded model, each pressed once the
pair on the page is whole and the next one is ready, while the one after that is being made. Prints
one JSON line last, with the settings it ran under. Nothing else should run on the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, ViewportSize

from backend.settings import load_settings
from benchmarks.times import percentile
from dev.accessibility import DOORS, ROOMS, open_page, serious_in_every_look
from dev.browser import chromium
from dev.running import RunningApp

PAIRS = 60
EMBEDDED_PAIRS = 20
SIZE: ViewportSize = {"width": 1280, "height": 760}
_FIRST_PAIR_MS = 120_000
_LOOK_MS = 100
KEYS = ("1", "4", "2", "Shift+Digit1", "3", "Shift+Digit4")
SETTINGS = {"engine": "echo", "log_level": "warning"}
EMBEDDED_SETTINGS = {"trainer": "false", "log_level": "warning"}
SIGN_IN = {"username": "bench", "password": "a long enough password"}
# From the key until the frame after the one in which the next pair stood as it stays: prompt and
# both responses are others than before, nothing is being written any more, and nothing changes
# after it (a formula, for instance, is set after its text). Watched until the next key.
_STOPWATCH = """() => {
  const part = (id) => document.getElementById(id);
  const texts = () =>
    ["prompt", "response-a", "response-b"].map((id) => part(id)?.querySelector(".md")?.innerText);
  const desk = (window.benchDesk = { ms: null });
  let key = null;
  document.addEventListener("keydown", (event) => {
    if (event.key === "Shift") return;
    const before = texts();
    let stood = null;
    key = event;
    desk.ms = null;
    const look = () => {
      if (key !== event) return;
      const now = texts();
      const another = now.every((text, n) => text && text !== before[n]);
      const changed = now.some((text, n) => text !== stood?.[n]);
      if (another && changed && !part("stop")?.checkVisibility()) {
        stood = now;
        requestAnimationFrame(() => {
          if (key === event) desk.ms = performance.now() - event.timeStamp;
        });
      }
      requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
  }, true);
}"""
_LISTENS = """() => {
  const first = document.getElementById("choose-a");
  return first && !first.disabled && !document.querySelector("#bar[aria-disabled]");
}"""
_IS_WHOLE = "() => document.getElementById('undo')?.disabled === false"


@dataclass(frozen=True, slots=True)
class Pressed:
    """One key: how long until the next pair stood, and whether that was ready before the key."""

    ms: float
    was_ready: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=PAIRS, help="choices to make")
    parser.add_argument(
        "--embedded-pairs",
        type=int,
        default=EMBEDDED_PAIRS,
        help="choices on the embedded model; 0 leaves it out",
    )
    told = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="attune-bench-") as folder,
        RunningApp(Path(folder) / "data", **SETTINGS) as app,
        chromium() as browser,
    ):
        app.wait_ready()
        page = browser.new_page(viewport=SIZE)
        serious = look_at(page, app.address, DOORS)
        figures = measure(page, app, told.pairs)
        serious += look_at(page, app.address, ROOMS)
    if told.embedded_pairs:
        figures |= measure_embedded(told.embedded_pairs)
    for line in serious:
        print(line, file=sys.stderr)
    told_settings = settings_told(told.pairs, told.embedded_pairs)
    print(json.dumps(figures | {"axe_serious": len(serious), "settings": told_settings}))


def measure(page: Page, app: RunningApp, pairs: int) -> dict[str, Any]:
    """The choices and the first load of an empty app's admin, to whom every page is open."""
    sign_in(page, app)
    pressed, seconds = choose(page, pairs, lambda: _pairs_ready(app.data) > 0)
    return summary(pressed, seconds) | {"bytes_first_load": bytes_of_first_load(page, app.address)}


def measure_embedded(pairs: int) -> dict[str, Any]:
    """The same keys where a model writes; each is pressed once the next pair is ready."""
    with (
        tempfile.TemporaryDirectory(prefix="attune-bench-") as folder,
        RunningApp(Path(folder) / "data", **EMBEDDED_SETTINGS) as app,
        chromium() as browser,
    ):
        app.wait_ready()
        page = browser.new_page(viewport=SIZE)
        sign_in(page, app)
        pressed, _ = choose(page, pairs, lambda: wait_for_pair(page, app.data))
    told = summary(pressed, 1)
    names = ("key_to_next_ms_p50", "key_to_next_ms_p95", "choices")
    return {f"{name}_embedded": told[name] for name in names}


def settings_told(pairs: int, embedded_pairs: int) -> dict[str, Any]:
    """What the figures hang on besides the machine; what is not set here is the app's default."""
    usual = load_settings({})
    return {
        "cores": len(os.sched_getaffinity(0)),
        "engine_threads": usual.resolved_engine_threads,
        "max_new_tokens": usual.max_new_tokens,
        "prefetch": usual.prefetch,
        "window": f"{SIZE['width']}x{SIZE['height']}",
        "pairs": {"asked": pairs, **SETTINGS},
        "embedded": {"asked": embedded_pairs, **EMBEDDED_SETTINGS},
    }


def sign_in(page: Page, app: RunningApp) -> None:
    """An empty app's admin at the first pair."""
    page.set_viewport_size(SIZE)
    page.goto(app.wait_invite())
    for name, value in SIGN_IN.items():
        page.fill(f"[name={name}]", value)
    page.keyboard.press("Enter")
    page.wait_for_function(_LISTENS, timeout=_FIRST_PAIR_MS)


def wait_for_pair(page: Page, data: Path) -> bool:
    """Wait until the page's pair is whole, one nobody has seen is stored, and the bar listens."""
    page.wait_for_function(_IS_WHOLE, timeout=_FIRST_PAIR_MS)
    while not _pairs_ready(data):
        page.wait_for_timeout(_LOOK_MS)
    page.wait_for_function(_LISTENS)
    return True


def summary(pressed: Sequence[Pressed], seconds: float) -> dict[str, Any]:
    """The figures of `len(pressed)` choices made within so many seconds.

    Raises:
        ValueError: fewer than two pairs were ready, so there is no distribution.
    """
    ready_ms = [key.ms for key in pressed if key.was_ready]
    if len(ready_ms) < 2:
        raise ValueError(f"only {len(ready_ms)} of {len(pressed)} pairs were ready before the key")
    return {
        "key_to_next_ms_p50": round(percentile(ready_ms, 50)),
        "key_to_next_ms_p95": round(percentile(ready_ms, 95)),
        "choices_per_minute": round(60 * len(pressed) / seconds, 1),
        "choices": len(pressed),
        "pairs_ready": len(ready_ms),
    }


def choose(page: Page, count: int, is_ready: Callable[[], bool]) -> tuple[list[Pressed], float]:
    """Press a verdict's key whenever the page listens, `count` times; the keys, and all seconds."""
    page.evaluate(_STOPWATCH)
    pressed: list[Pressed] = []
    started = time.perf_counter()
    for key in itertools.islice(itertools.cycle(KEYS), count):
        was_ready = is_ready()
        page.keyboard.press(key)
        page.wait_for_function("() => benchDesk.ms !== null", polling="raf")
        page.wait_for_function(_LISTENS, polling="raf")
        ms = page.evaluate("() => benchDesk.ms")
        pressed.append(Pressed(ms, was_ready))
    return pressed, time.perf_counter() - started


def bytes_of_first_load(page: Page, address: str) -> int:
    """What a browser with an empty cache is sent, headers included, until a pair can be judged."""
    browser = page.context.browser
    assert browser is not None
    context = browser.new_context(viewport=SIZE, storage_state=page.context.storage_state())
    fresh = context.new_page()
    sizes: list[float] = []
    network = context.new_cdp_session(fresh)
    network.on("Network.loadingFinished", lambda told: sizes.append(told["encodedDataLength"]))
    network.send("Network.enable")
    fresh.goto(address)
    fresh.wait_for_function(_LISTENS)
    context.close()
    return round(sum(sizes))


def look_at(page: Page, address: str, pages: dict[str, str]) -> list[str]:
    """What axe finds on each page, in every look."""
    found = []
    for path, filled in pages.items():
        open_page(page, address, path, filled)
        found += [f"{path}, {line}" for line in serious_in_every_look(page)]
    return found


def _pairs_ready(data: Path) -> int:
    with closing(sqlite3.connect(data / "attune.db")) as connection:
        rows = connection.execute(
            "SELECT count(*) FROM comparisons WHERE shown_at IS NULL AND retired_at IS NULL"
        ).fetchall()
    return int(rows[0][0])


if __name__ == "__main__":
    main()
