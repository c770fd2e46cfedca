"""Earlier pairs once more, sides swapped: what comes, and that nothing is learnt from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.insights import Insights
from db.models import Comparison
from db.queries import evidence as evidence_queries
from db.queries import rounds as round_queries
from db.session import Database
from tests.backend.echo_house import House, comparison_id, judge, last, open_house, row
from tests.conftest import Clock


@pytest.fixture
def repeating(database: Database, clock: Clock, tmp_path: Path) -> Iterator[House]:
    """Half of all pairs come again, where one can."""
    with open_house(database, clock, tmp_path, repeat_share=0.5) as house:
        yield house


def test_a_repeat_is_the_same_pair_turned_round(repeating: House) -> None:
    house = repeating
    user = house.user("mia")
    shown = [judge(house, user) for _ in range(24)]
    with house.database.read() as session:
        repeats = session.scalars(
            select(Comparison).where(Comparison.repeat_of_id.is_not(None))
        ).all()
    by_id = {view.comparison_id: view for view in shown}
    assert len(repeats) > 2
    assert len({repeat.repeat_of_id for repeat in repeats}) == len(repeats), "each once"
    for repeat in repeats:
        first, again = by_id[repeat.repeat_of_id], by_id[repeat.id]
        assert (again.prompt, again.text_a, again.text_b) == (
            first.prompt,
            first.text_b,
            first.text_a,
        )
        apart = [view.comparison_id for view in shown]
        assert apart.index(repeat.id) - apart.index(repeat.repeat_of_id) > 10


def test_a_repeat_is_never_learnt_from(repeating: House) -> None:
    house = repeating
    user, identity = house.user("mia"), house.engine.model_identity
    for _ in range(24):
        judge(house, user)
    with house.database.read() as session:
        repeats = set(
            session.scalars(select(Comparison.id).where(Comparison.repeat_of_id.is_not(None)))
        )
        waiting = round_queries.waiting_choices(session, identity, house.clock.now)
        unscored = evidence_queries.to_score(session, identity, [], 100)
        held_out = round_queries.held_out_choices(session, identity, 100, house.clock.now)
        purposes = {choice.comparison_id: purpose for choice, purpose in waiting}
    assert repeats
    assert {purposes[each] for each in repeats} == {"repeat"}
    assert all(purpose != "repeat" for each, purpose in purposes.items() if each not in repeats)
    assert not repeats & {choice.comparison_id for choice in (*unscored, *held_out)}


def test_how_steady_choices_are(repeating: House) -> None:
    house = repeating
    user, other = house.user("mia"), house.user("ben")
    insights = Insights(house.database, identity="x", live_version=lambda: 1, min_choices=5)
    assert insights.consistency(user).same.count == 0
    repeats = 0
    while repeats < 3:
        view = last(house.desk.stream(user))
        repeat = row(house, comparison_id(view)).repeat_of_id is not None
        # The first repeat is judged as before, sides swapped; from then on it is always side A.
        verdict = "b" if repeat and not repeats else "a"
        repeats += repeat
        house.clock.forward(seconds=1)
        house.desk.choose(user, comparison_id(view), verdict)
    steady = insights.consistency(user)
    assert (steady.same.count, steady.same.tally.wins, steady.same_side) == (3, 1, 2)
    assert insights.consistency(other).same.count == 0
    listed = {who.username: who.steady for who in insights.lab().users}
    assert (listed["mia"], listed["ben"].same.count) == (steady, 0)
