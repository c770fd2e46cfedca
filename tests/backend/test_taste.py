"""What people are told about their own figures, on both databases."""

from __future__ import annotations

import pytest

from backend.confidence import Tally
from backend.evidence import Blind, Figure
from backend.taste import Tastes, curve
from db.models import Response
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


def test_only_ones_own_choices_that_stand_count(judged: Judged) -> None:
    user, other, version = judged.user("mia"), judged.user("jo"), judged.version()
    foreign = judged.version("another model")
    margins = [(2.0, -1.0, None), (0.0, 0.0, -1.0), (-1.0, 1.0, 0.5), (1.0, 2.0, None)]
    for values in margins:
        judged.score(judged.choice(user, judged.comparison(user, version), "a"), version, values)
    for owner, by in ((other, version), (user, foreign)):
        choice = judged.choice(owner, judged.comparison(owner, by), "a")
        judged.score(choice, by, (9.0, 9.0, 9.0))
    changed = judged.comparison(user, version)
    first = judged.choice(user, changed, "a")
    judged.score(first, version, (9.0, 9.0, 9.0))
    judged.choice(user, changed, "b", supersedes=first)
    taste = Tastes(judged.database, identity="base").of(user)
    assert taste.personal == Figure(Tally(2, 1, 1))
    assert taste.generic == Figure(Tally(2, 1, 1))
    assert taste.wrong == Figure(Tally(1, 0, 1))
    assert taste.apart == Figure(Tally(1, 0, 1))  # they disagreed on the first and the third
    assert [point.choices for point in taste.curve] == [1, 2, 3, 4]
    assert taste.curve[-1].personal == taste.personal


def test_blind_pairs_count_once_there_was_something_to_tell(judged: Judged) -> None:
    user, first = judged.user("mia"), judged.version()
    sides = ("generic", "personal")

    def blind(version: int, verdict: str) -> int:
        comparison = judged.comparison(user, version, purpose="blind", conditions=sides)
        judged.choice(user, comparison, verdict)
        return comparison

    blind(first, "b")
    trained = judged.choice(user, judged.comparison(user, first), "a")
    second = judged.version(round_id=judged.round(first, [trained]))
    for verdict in ("b", "b", "a", "tie", "both_bad", "skip"):
        blind(second, verdict)
    with_profile = blind(first, "b")
    with judged.database.write() as session:
        session.query(Response).filter_by(comparison_id=with_profile, side="B").update(
            {Response.profile: "short"}
        )
    taste = Tastes(judged.database, identity="base").of(user)
    assert taste.blind == Blind(won=3, lost=1, tie=1, both_bad=1)
    assert taste.before == 1


def test_nobody_has_figures_before_the_first_choice(judged: Judged) -> None:
    taste = Tastes(judged.database, identity="base").of(judged.user("mia"))
    assert taste.personal.share is None
    assert taste.curve == ()
    assert taste.blind == Blind()


def test_a_long_curve_is_thinned_and_keeps_both_ends() -> None:
    points = curve([(1.0, -1.0)] * 1001)
    assert len(points) < 60
    assert points[0].choices == 1
    assert points[-1].choices == 1001
    assert points[-1].personal.tally == Tally(1001, 0, 0)
    assert points[-1].generic.tally == Tally(0, 0, 1001)
