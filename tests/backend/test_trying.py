"""One prompt for everyone and for you: nothing stored, labelled truly, one at a time."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import func, select

from backend.engines.base import Condition, GenerationRequest, Priority, Sampling, VersionRef
from backend.engines.echo import EchoEngine, write_version
from backend.engines.generation import RunningGeneration
from backend.errors import InvalidInput, Unavailable
from backend.trying import Trials, Tried
from db.models import Comparison, Prompt
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock


class Watched(EchoEngine):
    """Remembers what it was asked."""

    asked: tuple[tuple[GenerationRequest, ...], Priority]

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> RunningGeneration:
        self.asked = tuple(requests), priority
        return super().generate(self.asked[0], priority)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Watched]:
    engine = Watched()
    write_version(tmp_path / "one", users=[1])
    engine.swap(VersionRef(1, tmp_path / "one"))
    yield engine
    engine.close()


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


def trials(judged: Judged, engine: EchoEngine, profile: str = "") -> Trials:
    return Trials(
        judged.database,
        engine,
        sampling=Sampling(max_new_tokens=40),
        max_prompt_chars=50,
        rng=random.Random(1),
        profile_of=lambda _user: profile,
    )


def tried(judged: Judged, engine: EchoEngine, profile: str = "", user: int = 1) -> Tried:
    return list(trials(judged, engine, profile).ask(user, " How do I start running? "))[-1]


def test_both_answers_and_nothing_kept(judged: Judged, engine: Watched) -> None:
    user = judged.user("mia")
    last = tried(judged, engine, user=user)
    assert last.complete
    assert last.generic
    assert last.personal
    requests, priority = engine.asked
    assert [request.condition for request in requests] == [Condition.GENERIC, Condition.PERSONAL]
    assert requests[0].sampling == requests[1].sampling
    assert priority is Priority.PREFETCH
    with judged.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Prompt)) == 0
        assert session.scalar(select(func.count()).select_from(Comparison)) == 0


def test_it_is_said_whether_there_is_anything_personal(judged: Judged, engine: Watched) -> None:
    user, version = judged.user("mia"), judged.version()
    assert not tried(judged, engine, user=user).known
    assert tried(judged, engine, "Short.", user=user).known
    assert engine.asked[0][0].messages == ({"role": "user", "content": "How do I start running?"},)
    assert len(engine.asked[0][1].messages) == 2  # the profile is in the personal prompt alone
    choice = judged.choice(user, judged.comparison(user, version), "a")
    round_id = judged.round(version, [choice])
    trained = judged.version(round_id=round_id)
    live = engine.live_version
    assert live is not None
    engine.swap(VersionRef(trained, live.path))
    assert tried(judged, engine, user=user).known
    assert not tried(judged, engine, user=judged.user("jo")).known


@pytest.mark.parametrize("text", ["", "  ", "x" * 51])
def test_what_cannot_be_asked(judged: Judged, engine: Watched, text: str) -> None:
    with pytest.raises(InvalidInput):
        list(trials(judged, engine).ask(1, text))


def test_a_stopped_engine_is_an_expected_error(judged: Judged, engine: Watched) -> None:
    engine.close()
    with pytest.raises(Unavailable):
        list(trials(judged, engine).ask(1, "Hello?"))


def test_leaving_or_asking_again_stops_the_writing(judged: Judged, tmp_path: Path) -> None:
    engine = EchoEngine(word_delay_s=0.05)
    write_version(tmp_path / "slow")
    engine.swap(VersionRef(1, tmp_path / "slow"))
    asking = trials(judged, engine)
    first = asking.ask(1, "First?")
    next(first)
    second = asking.ask(1, "Second?")
    next(second)
    ended = list(first)[-1]  # cut off, not written to its end
    assert ended.complete
    assert isinstance(second, Generator)
    second.close()
    assert asking._running == {}
    engine.close()
