"""Which choices a user's taste is made from, and that scores only know what came before."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.engines.echo import EchoEngine, write_version
from backend.prequential import Scorer
from backend.taste_model import STRANGER, TasteModel, taste_from
from backend.user_tastes import taste_of
from backend.versions import Versions
from db.models import PrequentialScore
from db.queries import comparisons as queries
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock

SHORT, LONG = "Air does it.", "The air scatters blue light far more than it does red light."
LISTED, WARM = "1. Sun: light.\n2. Air: scatters.", "You and I, my friend, can see it together!"


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


def tastes(judged: Judged, user: int, before: int | None = None) -> TasteModel:
    with judged.database.read() as session:
        return taste_of(session, user, before=before)


def same(one: TasteModel, *choices: tuple[str, str]) -> bool:
    other = taste_from(choices)
    return one.choices == other.choices and bool((one.weights == other.weights).all())


def choose(
    judged: Judged, user: int, version: int, texts: tuple[str, str], verdict: str = "a"
) -> int:
    return judged.choice(user, judged.comparison(user, version, texts=texts), verdict)


def test_a_taste_is_made_of_ones_own_choices_on_either_side(judged: Judged) -> None:
    mia, ben, version = judged.user("mia"), judged.user("ben"), judged.version()
    choose(judged, mia, version, (SHORT, LONG))
    choose(judged, mia, version, (LISTED, WARM), "b")
    choose(judged, ben, version, (LONG, SHORT))
    assert same(tastes(judged, mia), (SHORT, LONG), (WARM, LISTED))
    assert same(tastes(judged, ben), (LONG, SHORT))
    assert tastes(judged, judged.user("jo")) is STRANGER


def test_what_prefers_nothing_or_must_not_be_learnt_from_says_nothing(judged: Judged) -> None:
    user, version = judged.user("mia"), judged.version()
    for verdict in ("tie", "both_bad", "skip", "withdrawn"):
        choose(judged, user, version, (SHORT, LONG), verdict)
    blind = judged.comparison(user, version, purpose="blind", texts=(SHORT, LONG))
    judged.choice(user, blind, "a")
    again = judged.comparison(user, version, texts=(LONG, SHORT), repeats=blind)
    judged.choice(user, again, "b")
    assert tastes(judged, user) is STRANGER
    # Personal against the base model does: only blind pairs are held out.
    base = judged.comparison(user, version, purpose="base", texts=(SHORT, LONG))
    judged.choice(user, base, "b")
    assert same(tastes(judged, user), (LONG, SHORT))


def test_a_choice_that_was_changed_or_taken_back_says_what_stands(judged: Judged) -> None:
    user, version = judged.user("mia"), judged.version()
    pair = judged.comparison(user, version, texts=(SHORT, LONG))
    first = judged.choice(user, pair, "a")
    changed = judged.choice(user, pair, "b", supersedes=first)
    assert same(tastes(judged, user), (LONG, SHORT))
    explained = judged.choice(user, pair, "b", supersedes=changed)
    assert same(tastes(judged, user), (LONG, SHORT))
    judged.choice(user, pair, "withdrawn", supersedes=explained)
    assert tastes(judged, user) is STRANGER


def test_before_a_choice_only_earlier_ones_are_known(judged: Judged) -> None:
    mia, ben, version = judged.user("mia"), judged.user("ben"), judged.version()
    first = choose(judged, mia, version, (SHORT, LONG))
    other = choose(judged, ben, version, (WARM, LISTED))
    second = choose(judged, mia, version, (LISTED, WARM))
    assert tastes(judged, mia, before=first) is STRANGER
    assert same(tastes(judged, mia, before=other), (SHORT, LONG))
    assert same(tastes(judged, mia, before=second), (SHORT, LONG))
    assert same(tastes(judged, mia, before=second + 1), (SHORT, LONG), (LISTED, WARM))
    assert same(tastes(judged, ben, before=second), (WARM, LISTED))


def test_only_the_newest_choices_count(judged: Judged, monkeypatch: pytest.MonkeyPatch) -> None:
    assert queries._NEWEST == 500
    monkeypatch.setattr(queries, "_NEWEST", 2)
    user, version = judged.user("mia"), judged.version()
    choose(judged, user, version, (LONG, SHORT))
    choose(judged, user, version, (SHORT, LONG))
    last = choose(judged, user, version, (LISTED, WARM))
    assert same(tastes(judged, user), (SHORT, LONG), (LISTED, WARM))
    assert same(tastes(judged, user, before=last), (LONG, SHORT), (SHORT, LONG))


@pytest.fixture
def engine() -> Iterator[EchoEngine]:
    engine = EchoEngine()
    yield engine
    engine.close()


def scored(judged: Judged, engine: EchoEngine) -> dict[int, PrequentialScore]:
    """Choice id → what a scorer finds now."""
    Scorer(judged.database, engine, clock=judged.clock).run()
    with judged.database.read() as session:
        return {row.choice_id: row for row in session.scalars(select(PrequentialScore))}


def test_a_choice_is_foreseen_by_earlier_ones_alone(
    judged: Judged, engine: EchoEngine, tmp_path: Path
) -> None:
    Versions(judged.database, engine, tmp_path, clock=judged.clock).follow()
    mia, ben = judged.user("mia"), judged.user("ben")
    assert engine.live_version is not None
    version = engine.live_version.version_id
    first = choose(judged, mia, version, (SHORT, LONG))
    other = choose(judged, ben, version, (LONG, SHORT))
    blind = judged.comparison(mia, version, purpose="blind", texts=(LONG, SHORT))
    foreseen = judged.choice(mia, blind, "b")
    second = choose(judged, mia, version, (WARM, LONG), "b")
    third = choose(judged, mia, version, (LONG, SHORT), "b")
    found = scored(judged, engine)
    assert found[first].personal_taste_nats is found[other].personal_taste_nats is None
    once, then = taste_from([(SHORT, LONG)]), taste_from([(SHORT, LONG), (LONG, WARM)])
    said = {n: found[n].personal_taste_nats for n in (foreseen, second, third)}
    assert said == {
        foreseen: pytest.approx(once.log_odds(SHORT, LONG), abs=6e-4),
        second: pytest.approx(once.log_odds(LONG, WARM), abs=6e-4),
        third: pytest.approx(then.log_odds(SHORT, LONG), abs=6e-4),
    }
    assert (said[foreseen] or 0.0) > 0.5
    # Nobody else has a vector: there is no wrong user to ask.
    assert all(row.wrong_taste_nats is row.wrong_user_id is None for row in found.values())


def test_a_wrong_users_choices_are_asked_as_they_were_then(
    judged: Judged, engine: EchoEngine, tmp_path: Path
) -> None:
    versions = Versions(judged.database, engine, tmp_path, clock=judged.clock)
    versions.follow()
    mia, ben = judged.user("mia"), judged.user("ben")
    assert engine.live_version is not None
    version = engine.live_version.version_id
    learnt = [
        choose(judged, mia, version, (SHORT, LONG)),
        choose(judged, ben, version, (LONG, SHORT)),
    ]
    write_version(tmp_path / "next", flavour=1, users=[mia, ben])
    round_id = judged.round(version, learnt)
    with judged.database.write() as session:
        identity = engine.model_identity
        versions.promote(session, "next", identity, cause="round", round_id=round_id)
    versions.follow()
    hers = choose(judged, mia, version, (SHORT, WARM))
    choose(judged, ben, version, (WARM, SHORT))  # later: it must not be known
    found = scored(judged, engine)
    assert found.keys().isdisjoint(learnt)
    row = found[hers]
    assert row.wrong_user_id == ben
    mine, theirs = taste_from([(SHORT, LONG)]), taste_from([(LONG, SHORT)])
    assert row.personal_taste_nats == pytest.approx(mine.log_odds(SHORT, WARM), abs=6e-4)
    assert row.wrong_taste_nats == pytest.approx(theirs.log_odds(SHORT, WARM), abs=6e-4)
    assert row.wrong_taste_nats == -(row.personal_taste_nats or 0) != 0
