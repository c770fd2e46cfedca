"""Who is served when, on a running model: what somebody waits for, what nobody does, scoring."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from backend.engines import model_thread
from backend.engines.base import Condition, Priority, VersionRef
from backend.engines.calls import Call, Row
from backend.engines.lanes import Lane
from backend.engines.local import LocalEngine
from tests.backend.engines.making import USERS, greedy, messages_of, write_random_version
from trainer.language_model import LanguageModel

WAIT_S = 240.0
AHEAD = Priority.PREFETCH
PROMPTS = ("How do I start running?", "Name three rivers in Europe.")


@pytest.fixture
def engine(tiny: LanguageModel, tmp_path: Path) -> Iterator[LocalEngine]:
    write_random_version(tiny, tmp_path / "version", seed=5)
    engine = LocalEngine(tiny, max_batch=8, threads=1)
    engine.swap(VersionRef(1, tmp_path / "version"))
    yield engine
    engine.close()


def test_interactive_calls_go_before_prefetched_ones(engine: LocalEngine) -> None:
    long = greedy(PROMPTS[0], Condition.GENERIC, tokens=400)
    prefetched = [engine.generate([long, long], Priority.PREFETCH) for _ in range(6)]
    next(prefetched[0].stream())
    urgent = engine.generate([greedy(PROMPTS[0], Condition.GENERIC, tokens=2)] * 2)
    urgent.result(WAIT_S)
    assert not any(generation.over for generation in prefetched)
    for generation in prefetched:
        generation.cancel()
        generation.result(WAIT_S)


def test_rows_nobody_waits_for_stand_aside_but_not_for_good(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[bool] = []
    step = Lane.step

    def noted(lane: Lane) -> None:
        steps.append(lane.someone_waits)
        step(lane)

    monkeypatch.setattr(Lane, "step", noted)
    asked = [greedy(PROMPTS[0], Condition.GENERIC, tokens=40)] * 2
    with engine._thread._wake:  # so that both begin in the same turn
        patient = engine.generate(asked, Priority.PREFETCH)
        urgent = engine.generate(asked)
    assert patient.result(WAIT_S)[0].token_ids == urgent.result(WAIT_S)[0].token_ids
    assert steps.count(True) == steps.count(False) == 40
    together = steps[: len(steps) - steps[::-1].index(True)]
    assert together.count(False) == pytest.approx(40 / 8, abs=1)


def test_drafts_run_beside_what_somebody_waits_for_and_are_read_a_prompt_at_a_time(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    step, admit = Lane.step, Lane.admit

    def noted_step(lane: Lane) -> None:
        if lane.someone_waits:
            done.append("step")
        step(lane)

    def noted_admit(lane: Lane, call: Call, rows: Sequence[Row]) -> None:
        done.append("awaited" if lane.someone_waits else f"{len(rows)} drafts")
        admit(lane, call, rows)

    monkeypatch.setattr(Lane, "step", noted_step)
    monkeypatch.setattr(Lane, "admit", noted_admit)
    drafts = [
        *(greedy(PROMPTS[0], Condition.PERSONAL, user, tokens=3) for user in (1, 1, *USERS)),
        greedy(PROMPTS[0], Condition.GENERIC, tokens=3),
        greedy(PROMPTS[0], Condition.BASE, tokens=3),
    ]
    alone = engine.generate(drafts, AHEAD).result(WAIT_S)
    assert done == ["7 drafts", "1 drafts"], "at once where nobody waits"
    done.clear()
    watched = engine.generate([greedy(PROMPTS[1], Condition.GENERIC, tokens=400)] * 2)
    next(watched.stream())
    beside = engine.generate(drafts, AHEAD).result(WAIT_S)
    assert not watched.over
    watched.cancel()
    watched.result(WAIT_S)
    assert [made.token_ids for made in beside] == [made.token_ids for made in alone]
    read = [place for place, what in enumerate(done) if what.endswith("drafts")]
    assert [done[place] for place in read] == ["3 drafts", *["1 drafts"] * 5]
    assert {after - before for before, after in itertools.pairwise(read)} == {9}


@pytest.mark.parametrize(
    ("priority", "gives_way_s", "waits"),
    [
        (Priority.INTERACTIVE, WAIT_S, True),
        (Priority.INTERACTIVE, 0.0, False),
        (Priority.PREFETCH, WAIT_S, False),
    ],
)
def test_scoring_gives_way_for_a_while_to_what_somebody_waits_for(
    engine: LocalEngine,
    monkeypatch: pytest.MonkeyPatch,
    priority: Priority,
    gives_way_s: float,
    waits: bool,
) -> None:
    monkeypatch.setattr(model_thread, "_SCORING_GIVES_WAY_S", gives_way_s)
    # At temperature 0 this one goes on to its last token.
    running = engine.generate([greedy(PROMPTS[0], Condition.GENERIC, tokens=300)], priority)
    engine.score(messages_of(PROMPTS[1]), [(5, 6)], Condition.BASE, None)
    assert running.over == waits
    running.cancel()
    running.result(WAIT_S)
