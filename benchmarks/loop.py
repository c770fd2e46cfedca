"""The loop as a person meets it, measured on the real app: `make bench-loop`.

Starts `python app.py` on an empty data folder with the embedded model, drives it with Chromium,
and reads the times from outside. Then swaps versions under load in an engine of its own. Prints one
JSON line last. Nothing else should run on the machine.
"""

from __future__ import annotations

import itertools
import json
import re
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from playwright.sync_api import Browser, Page, expect

from backend.base_model import BaseModel, resolve
from backend.engines.base import (
    Condition,
    EngineClosed,
    EngineFailed,
    GenerationRequest,
    Sampling,
    VersionRef,
)
from backend.engines.local import LocalEngine
from backend.settings import load_settings
from benchmarks.times import percentile
from dev.browser import chromium
from dev.running import RunningApp
from dev.waiting import wait_for, wait_until_it_listens
from trainer.language_model import load_language_model

WAIT_S = 900.0
WAIT_MS = 1000 * WAIT_S
QUESTIONS = (
    "Tell me a long story about a lighthouse keeper.",
    "Explain in detail how bread is made.",
    "Describe a long walk through an old town.",
    "Explain in detail how a bicycle works.",
    "Tell me everything about how rivers are formed.",
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is done: tokens of a response, choices of a round, own questions, swaps."""

    new_tokens: int = 64
    choices: int = 10
    pairs_alone: int = 5
    swaps: int = 20

    def settings(self) -> dict[str, str]:
        """The app's."""
        return {
            "max_new_tokens": str(self.new_tokens),
            "round_min_choices": str(self.choices),
            "round_replay": str(self.choices),
            "blind_share": "0",
            "fast_update_choices": "0",  # one full round makes version 2, the next one version 3
            "tick_s": "0.5",
            "log_level": "warning",
        }


def main() -> None:
    with chromium() as browser:
        print(json.dumps(measure(Sizes(), browser)))


def measure(sizes: Sizes, browser: Browser) -> dict[str, Any]:
    """Every figure of the last line."""
    model = resolve("embedded", None, Path("~/.cache/attune"))
    with tempfile.TemporaryDirectory(prefix="attune-bench-") as folder:
        data = Path(folder) / "data"
        return measure_app(data, sizes, browser) | measure_swaps(model, data, sizes.swaps)


def measure_app(data: Path, sizes: Sizes, browser: Browser) -> dict[str, Any]:
    """Everything a person, or an operator who looks at the machine, can see."""
    started = time.perf_counter()
    with RunningApp(data, **sizes.settings()) as app:
        _wait_live(app.address)
        start_to_ready_s = time.perf_counter() - started
        with closing(browser.new_page()) as page:
            desk = Desk(page, app.address, data)
            desk.sign_up()
            desk.choose(sizes.choices)
            desk.wait_for_version(2)
            pair_s = [desk.ask() for _ in range(sizes.pairs_alone)]
            desk.choose(sizes.choices)
            _say(f"the second round: {sizes.choices} new pairs and as many replayed")
            during_s: list[float] = []
            trainer_mb = 0.0
            while not during_s or desk.version() < 3:
                during_s.append(desk.ask())
                trainer_mb = max(trainer_mb, _trainer_mb(app.process.pid))
                _check_rounds(data)
            app_mb = psutil.Process(app.process.pid).memory_info().rss / 2**20
        rounds = _query(data, "SELECT started_at, ended_at, train_s, status FROM rounds")
        pairs = _query(data, "SELECT count(*) FROM round_pairs WHERE round_id = 2")
    return {
        "start_to_ready_s": round(start_to_ready_s, 2),
        "pair_s": round(statistics.median(pair_s), 2),
        "click_to_next_ms_p50": round(percentile(desk.clicks_ms, 50)),
        "click_to_next_ms_p95": round(percentile(desk.clicks_ms, 95)),
        "round_s": round(_seconds(rounds[1][0], rounds[1][1]), 1),
        "round_train_s": round(rounds[1][2], 1),
        "round_pairs": pairs[0][0],
        "round_states": [row[3] for row in rounds],
        "pair_s_during_round": round(statistics.median(during_s), 2),
        "pairs_during_round": len(during_s),
        "rss_mb_app": round(app_mb),
        "rss_mb_trainer": round(trainer_mb),
    }


class Desk:
    """The compare page, used with keys."""

    def __init__(self, page: Page, address: str, data: Path) -> None:
        self._page = page
        self._address = address
        self._data = data
        self._questions = itertools.cycle(QUESTIONS)
        self.clicks_ms: list[float] = []

    def sign_up(self) -> None:
        self._page.goto(f"{self._address}/signup")
        self._page.fill("[name=username]", "bench")
        self._page.fill("[name=password]", "a long enough password")
        self._page.keyboard.press("Enter")
        self._wait_for_pair()

    def choose(self, count: int) -> None:
        """Take the shorter response `count` times; times each key until the next pair stands."""
        for _ in range(count):
            wait_for(lambda: _prefetched(self._data) > 0, WAIT_S)
            wait_until_it_listens(self._page)
            lengths = {s: len(self._page.inner_text(f"#response-{s}")) for s in "ab"}
            before = self._page.inner_text("#prompt")
            started = time.perf_counter()
            self._page.keyboard.press("1" if lengths["a"] <= lengths["b"] else "4")
            self._page.wait_for_function(
                "before => { const now = document.querySelector('#prompt').innerText;"
                " return now && now !== before"
                " && !document.querySelector('#undo').disabled; }",
                arg=before,
                polling=10,
            )
            self.clicks_ms.append((time.perf_counter() - started) * 1000)

    def ask(self) -> float:
        """Ask an own question; seconds until both responses are complete. Skips it afterwards."""
        self._page.click("#ask-open")
        self._page.fill("#own-text textarea, #own-text input", next(self._questions))
        started = time.perf_counter()
        self._page.click("#own-send")
        expect(self._page.locator("#undo")).to_be_disabled(timeout=WAIT_MS)
        self._wait_for_pair()
        seconds = time.perf_counter() - started
        self._page.click("#choose-skip")
        self._wait_for_pair()
        return seconds

    def version(self) -> int:
        """What the chip says is live."""
        found = re.search(r"version (\d+)", self._page.inner_text("#chip"))
        assert found is not None
        return int(found[1])

    def wait_for_version(self, number: int) -> None:
        expect(self._page.locator("#chip")).to_contain_text(f"version {number}", timeout=WAIT_MS)
        wait_for(lambda: _prefetched(self._data) > 1, WAIT_S)

    def _wait_for_pair(self) -> None:
        expect(self._page.locator("#undo")).to_be_enabled(timeout=WAIT_MS)


def measure_swaps(model: BaseModel, data: Path, swaps: int) -> dict[str, Any]:
    """Swap to and fro between two versions while pairs are being generated without a break."""
    (artifact,) = _query(data, "SELECT artifact FROM versions WHERE id = 2")[0]
    threads = load_settings({}).resolved_engine_threads
    engine = LocalEngine(load_language_model(model.path, model.identity), threads=threads)
    paths = [data / "versions" / artifact, data / "versions" / "initial-again"]
    engine.write_initial(paths[1])
    engine.swap(VersionRef(1, paths[0]))
    failures: list[str] = []
    done = threading.Event()
    workers = [
        threading.Thread(target=_generate, args=(engine, n, done, failures)) for n in range(3)
    ]
    for worker in workers:
        worker.start()
    for number in range(swaps):
        _wait_for_tokens(engine, 20)
        engine.swap(VersionRef(number + 2, paths[(number + 1) % 2]))
    done.set()
    for worker in workers:
        worker.join()
    stall_s = engine.stats().max_stall_s
    engine.close()
    return {
        "swap_stall_ms_max": round(stall_s * 1000, 1),
        "failed_requests_during_swap": len(failures),
        "swaps": swaps,
    }


def _wait_for_tokens(engine: LocalEngine, count: int) -> None:
    enough = engine.stats().tokens + count
    wait_for(lambda: engine.stats().tokens >= enough, WAIT_S)


def _generate(engine: LocalEngine, number: int, done: threading.Event, failures: list[str]) -> None:
    for seed in itertools.count():
        if done.is_set():
            return
        requests = [
            GenerationRequest(
                messages=({"role": "user", "content": QUESTIONS[number]},),
                condition=condition,
                user_id=1,
                sampling=Sampling(max_new_tokens=32, seed=2 * seed + place),
            )
            for place, condition in enumerate((Condition.PERSONAL, Condition.GENERIC))
        ]
        try:
            first, second = engine.generate(requests).result()
        except (EngineFailed, EngineClosed) as error:
            failures.append(str(error))
        else:
            if first.version_id != second.version_id or not first.token_ids:
                failures.append("a pair of two versions")


def _wait_live(address: str) -> None:
    wait_for(lambda: httpx.get(f"{address}/readyz").status_code == 200, WAIT_S)


def _prefetched(data: Path) -> int:
    rows = _query(
        data, "SELECT count(*) FROM comparisons WHERE shown_at IS NULL AND retired_at IS NULL"
    )
    return int(rows[0][0])


def _query(data: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(data / "attune.db")) as connection:
        return connection.execute(query).fetchall()


def _check_rounds(data: Path) -> None:
    wrong = _query(data, "SELECT status, reason FROM rounds WHERE status IN ('refused', 'failed')")
    if wrong:
        raise RuntimeError(f"a round was not promoted: {wrong}")


def _seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


def _trainer_mb(app_pid: int) -> float:
    children = psutil.Process(app_pid).children()
    return max((child.memory_info().rss for child in children), default=0) / 2**20


def _say(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
