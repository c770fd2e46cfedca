"""What a round is given, on both databases: its own base model's pairs, its own users' held-out."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from backend import round_input
from backend.round_input import RoundInput, RoundLimits
from db.models import Round
from db.queries import rounds as queries
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock

IDENTITY = "base"
LIMITS = RoundLimits(new=20, replay=20, user_cap=20)


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


def chosen(judged: Judged, user: int, version: int, *, purpose: str = "learn") -> int:
    return judged.choice(user, judged.comparison(user, version, purpose=purpose), "a")


def gathered(judged: Judged, *, users: Sequence[int] = ()) -> RoundInput:
    """A full round's input, or that of a vector round of `users`."""
    now = judged.clock()
    with judged.database.read() as session:
        if users:
            return round_input.gather_vector(
                session, IDENTITY, LIMITS, 0, users=users, unscored_until=now
            )
        rng = random.Random(1)
        return round_input.gather(session, IDENTITY, LIMITS, 0, rng, unscored_until=now)


def test_another_models_pairs_are_not_learnt_from_replayed_or_held_out(judged: Judged) -> None:
    user = judged.user("mia")
    ours, other = judged.version(IDENTITY), judged.version("another")
    kept = {}
    for version in (other, ours):
        learnt = chosen(judged, user, version)
        judged.round(version, [learnt])
        new, blind = chosen(judged, user, version), chosen(judged, user, version, purpose="blind")
        kept = {learnt: "replay", new: "new", blind: "held_out"}
    full = gathered(judged)
    assert full.uses == kept
    assert len(full.pairs) == 2
    assert len(full.held_out) == 1
    assert sorted(gathered(judged, users=[user]).uses.values()) == ["held_out", "new"]
    with judged.database.read() as session:
        assert queries.count_waiting(session, IDENTITY) == 2
        waiting = round_input.waiting(session, IDENTITY)
    assert [candidate.use for candidate in waiting] == ["new", "held_out"]


def test_texts_say_the_same_whichever_model_wrote_them(judged: Judged) -> None:
    user = judged.user("mia")
    chosen(judged, user, judged.version("another"))
    with judged.database.read() as session:
        assert queries.usable_judged_texts(session, user, judged.clock()) == [("A", "B")]


@pytest.mark.parametrize("kind", ["full", "vector"])
def test_who_learnt_with_another_model_is_new_to_this_one(judged: Judged, kind: str) -> None:
    before, now = judged.user("mia"), judged.user("jo")
    for user, identity in ((before, "another"), (now, IDENTITY)):
        version = judged.version(identity)
        number = judged.round(version, [chosen(judged, user, version)])
        with judged.database.write() as session:
            row = session.get_one(Round, number)
            row.kind, row.ended_at = kind, judged.clock()
    with judged.database.read() as session:
        assert queries.vector_served(session, IDENTITY) == {now}


def test_a_new_users_held_out_pairs_are_found_behind_everybody_elses(judged: Judged) -> None:
    user, other, version = judged.user("mia"), judged.user("jo"), judged.version(IDENTITY)
    own = chosen(judged, user, version, purpose="blind")
    for _ in range(32):
        chosen(judged, other, version, purpose="blind")
    assert gathered(judged, users=[user]).uses == {own: "held_out"}
