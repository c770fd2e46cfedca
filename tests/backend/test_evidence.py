"""What the lab says about whether it is personal, on both databases."""

from __future__ import annotations

import pytest

from backend.confidence import Tally
from backend.evidence import (
    Blind,
    CurvePoint,
    Evidence,
    Figure,
    Figures,
    Snapshot,
    Whose,
    vector_holders,
)
from db.queries.history import own_forecasts
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock

IDENTITY = "base"


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


def read(judged: Judged) -> Snapshot:
    return Evidence(judged.database, identity=IDENTITY).snapshot()


def figures_of(snapshot: Snapshot, user: int) -> Figures:
    return next(row.figures for row in snapshot.users if row.user_id == user)


def test_nothing_yet(judged: Judged) -> None:
    snapshot = read(judged)
    assert snapshot == Snapshot(Figures(), Figures(), (), ())
    assert snapshot.people.personal.share is None
    assert Evidence(judged.database, identity=IDENTITY).curve(Whose()) == ()


def test_margins_above_zero_are_hits_and_zero_is_half_of_one(judged: Judged) -> None:
    user, version = judged.user("mia"), judged.version()
    for nth, margins in enumerate([(2.0, 1.0, None), (0.0, -1.0, -2.0), (-0.5, 0.0, 1.0)]):
        choice = judged.choice(user, judged.comparison(user, version), "a")
        judged.score(choice, version, margins, nth=nth)
    snapshot = read(judged)
    figures = figures_of(snapshot, user)
    assert figures.personal == Figure(Tally(1, 1, 1))
    assert figures.personal.share == pytest.approx(0.5)
    assert figures.generic == Figure(Tally(1, 1, 1))
    assert figures.wrong == Figure(Tally(1, 0, 1))
    assert snapshot.people == figures
    assert [(row.version_id, row.figures) for row in snapshot.versions] == [(version, figures)]


def test_what_earlier_choices_said_stands_for_the_margin_where_it_said_anything(
    judged: Judged,
) -> None:
    user, version = judged.user("mia"), judged.version()
    for tastes in ((0.7, -0.7), (-0.7, 0.7), (0.0, 0.0), (None, None)):
        choice = judged.choice(user, judged.comparison(user, version), "a")
        judged.score(choice, version, (1.0, 1.0, -1.0), tastes=tastes)
    figures = figures_of(read(judged), user)
    assert figures.personal == Figure(Tally(3, 0, 1))
    assert figures.generic == Figure(Tally(4, 0, 0))
    assert figures.wrong == Figure(Tally(1, 0, 3))
    with judged.database.read() as session:
        said = own_forecasts(session, IDENTITY, user)
    assert said == [(0.7, 1.0, -0.7), (-0.7, 1.0, 0.7), (1.0, 1.0, -1.0), (1.0, 1.0, -1.0)]


def test_people_and_simulated_users_are_never_added_up(judged: Judged) -> None:
    version = judged.version()
    for name, simulated, margin in (("mia", False, 1.0), ("bot", True, -1.0), ("bob", True, 1.0)):
        user = judged.user(name, simulated=simulated)
        choice = judged.choice(user, judged.comparison(user, version), "b")
        judged.score(choice, version, (margin, margin, margin))
    snapshot = read(judged)
    assert snapshot.people.personal == Figure(Tally(1, 0, 0))
    assert snapshot.simulated.personal == Figure(Tally(1, 0, 1))
    assert [(row.username, row.simulated) for row in snapshot.users] == [
        ("mia", False),
        ("bot", True),
        ("bob", True),
    ]
    assert {row.simulated: row.figures.personal.count for row in snapshot.versions} == {
        False: 1,
        True: 2,
    }


def test_a_reason_counts_once_and_a_verdict_taken_back_not_at_all(judged: Judged) -> None:
    user, version = judged.user("mia"), judged.version()
    explained = judged.choice(user, judged.comparison(user, version), "a")
    undone = judged.choice(user, judged.comparison(user, version), "a")
    changed = judged.choice(user, judged.comparison(user, version), "a")
    for choice in (explained, undone, changed):
        judged.score(choice, version, (1.0, 1.0, 1.0))
    comparisons = {explained: 1, undone: 2, changed: 3}
    judged.choice(user, comparisons[explained], "a", supersedes=explained)
    judged.choice(user, comparisons[undone], "withdrawn", supersedes=undone)
    other = judged.choice(user, comparisons[changed], "b", supersedes=changed)
    judged.score(other, version, (-1.0, -1.0, -1.0))
    assert read(judged).people.personal == Figure(Tally(1, 0, 1))


def test_pairs_of_one_length_differ_by_at_most_a_tenth(judged: Judged) -> None:
    user, version = judged.user("mia"), judged.version()
    for lengths in ((100, 90), (90, 100), (100, 89), (10, 10), (5, 6)):
        first, second = (range(length) for length in lengths)
        comparison = judged.comparison(user, version, tokens=(list(first), list(second)))
        judged.score(judged.choice(user, comparison, "a"), version, (1.0, 0.0, None))
    assert figures_of(read(judged), user).matched == Figure(Tally(3, 0, 0))


def test_blind_results_from_the_side_personal_stood_on(judged: Judged) -> None:
    user, first = judged.user("mia"), judged.version()
    taught = judged.choice(user, judged.comparison(user, first), "a")
    second = judged.version(round_id=judged.round(first, [taught]))
    left, right = ("personal", "generic"), ("generic", "personal")
    for version, conditions, verdict in (
        (first, left, "a"),  # personal was generic then: left out
        (second, left, "a"),
        (second, right, "b"),
        (second, right, "a"),
        (second, left, "tie"),
        (second, left, "both_bad"),
        (second, left, "skip"),
    ):
        made = judged.comparison(user, version, purpose="blind", conditions=conditions)
        judged.choice(user, made, verdict)
    snapshot = read(judged)
    figures = figures_of(snapshot, user)
    assert figures.blind == Blind(won=2, lost=1, tie=1, both_bad=1)
    assert figures.blind.rate == Figure(Tally(2, 2, 1))
    assert figures.without_vector == Blind(won=1)
    assert snapshot.people.blind == figures.blind
    by_version = {row.version_id: row.figures for row in snapshot.versions}
    assert by_version[first] == Figures(without_vector=Blind(won=1))
    assert by_version[second].blind == figures.blind


def test_figures_of_another_base_model_are_left_out(judged: Judged) -> None:
    user, other = judged.user("mia"), judged.version(identity="other")
    choice = judged.choice(user, judged.comparison(user, other), "a")
    judged.score(choice, other, (1.0, 1.0, 1.0))
    blind = judged.comparison(user, other, purpose="blind", conditions=("personal", "generic"))
    judged.choice(user, blind, "a")
    assert read(judged) == Snapshot(Figures(), Figures(), (), ())


def test_the_curve_goes_by_pairs_judged_before(judged: Judged) -> None:
    version = judged.version()
    users = [judged.user("mia"), judged.user("noa"), judged.user("bot", simulated=True)]
    for user in users:
        for nth in range(7):
            choice = judged.choice(user, judged.comparison(user, version), "a")
            judged.score(choice, version, (1.0 if nth >= 5 else -1.0, 0.0, None), nth=nth)
    evidence = Evidence(judged.database, identity=IDENTITY)
    five, two = Figure(Tally(0, 0, 5)), Figure(Tally(2, 0, 0))
    halves, none = Figure(Tally(0, 5, 0)), Figure(Tally(0, 0, 0))
    alone = (
        CurvePoint(0, 4, five, halves, none),
        CurvePoint(5, 9, two, Figure(Tally(0, 2, 0)), none),
    )
    assert evidence.curve(Whose(user_id=users[0])) == alone
    assert evidence.curve(Whose(simulated=True)) == alone
    assert [point.personal for point in evidence.curve(Whose())] == [five + five, two + two]


def test_a_long_curve_has_a_bounded_number_of_points(judged: Judged) -> None:
    user, version = judged.user("mia"), judged.version()
    for nth in (0, 499):
        choice = judged.choice(user, judged.comparison(user, version), "a")
        judged.score(choice, version, (1.0, 1.0, None), nth=nth)
    points = Evidence(judged.database, identity=IDENTITY).curve(Whose())
    assert [(point.first, point.last) for point in points] == [(0, 20), (483, 503)]


def test_read_once_for_all_viewers_and_again_after_a_while(judged: Judged) -> None:
    moment = [0.0]
    evidence = Evidence(judged.database, identity=IDENTITY, timer=lambda: moment[0])
    before, curve = evidence.snapshot(), evidence.curve(Whose())
    user, version = judged.user("mia"), judged.version()
    choice = judged.choice(user, judged.comparison(user, version), "a")
    judged.score(choice, version, (1.0, 1.0, 1.0))
    assert evidence.snapshot() is before
    moment[0] = 10.0
    assert evidence.snapshot().people.personal.count == 1
    assert len(evidence.curve(Whose())) == len(curve) + 1


def test_vectors_are_inherited_along_the_line_a_version_came_from() -> None:
    # 1 → 2 → 3, and 4 from 1 again after a roll back.
    lineage = [(1, None, None), (2, 11, 1), (3, 12, 2), (4, 13, 1)]
    holders = vector_holders(lineage, [(11, 7), (12, 8), (12, 7), (13, 9)])
    assert holders[1] == frozenset()
    assert holders[2] == {7}
    assert holders[3] == {7, 8}
    assert holders[4] == {9}
