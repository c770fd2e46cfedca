"""What the lab reads of rounds."""

from __future__ import annotations

from typing import Any

import pytest

from backend.insights import Insights, RoundRow
from db.models import Round
from db.session import Database
from tests.backend.counting import asked
from tests.backend.judged import Judged
from tests.conftest import Clock


def _told(database: Database, clock: Clock, **columns: Any) -> RoundRow:
    judged = Judged(database, clock)
    number = judged.round(judged.version(), [])
    with judged.database.write() as session:
        row = session.get_one(Round, number)
        for name, value in columns.items():
            setattr(row, name, value)
    insights = Insights(judged.database, identity="base", live_version=lambda: 1, min_choices=5)
    (told,) = insights.lab().rounds
    return told


@pytest.mark.parametrize(
    ("accuracies", "last"),
    [([1.0], 1.0), ([1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.5], 0.5), ([], None)],
)
def test_a_rounds_accuracy_is_a_mean_over_the_last_third_of_its_steps(
    database: Database, clock: Clock, accuracies: list[float], last: float | None
) -> None:
    curve = [{"accuracy": accuracy} for accuracy in accuracies]
    assert _told(database, clock, curve=curve).accuracy_last == last


def test_a_rounds_losses_are_of_the_same_pairs_before_and_after(
    database: Database, clock: Clock
) -> None:
    figures = {"round_loss_parent": 0.7, "round_loss": 0.4}
    judged = _told(database, clock, gate={"figures": figures})
    assert (judged.loss_before, judged.loss_after) == (0.7, 0.4)


@pytest.mark.parametrize("gate", [None, {"figures": {"round_loss": 0.4}}])
def test_a_round_judged_before_that_was_measured_or_not_at_all_has_no_loss_before(
    database: Database, clock: Clock, gate: dict[str, Any] | None
) -> None:
    assert _told(database, clock, gate=gate).loss_before is None


def test_what_every_chip_says_is_counted_once_for_all_and_at_once_after_a_choice(
    database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = asked(monkeypatch, "count_waiting")
    judged = Judged(database, clock)
    user, other, version = judged.user("mia"), judged.user("tom"), judged.version()
    first = judged.comparison(user, version)
    insights = Insights(
        database,
        identity="base",
        live_version=lambda: version,
        min_choices=5,
        monotonic=lambda: clock().timestamp(),
    )
    for somebody in (user, other, user):
        assert str(insights.chip(somebody).until_next) == "learns again in 5"
    assert len(counted) == 1
    judged.choice(user, first, "a")
    for somebody in (user, other):
        assert str(insights.chip(somebody).until_next) == "learns again in 4"
    assert len(counted) == 2
    round_id = judged.round(version, [])
    with database.write() as session:
        session.get_one(Round, round_id).status = "running"
    assert insights.chip(other).training
    assert len(counted) == 3
    clock.forward(seconds=3)
    insights.chip(user)
    assert len(counted) == 4
