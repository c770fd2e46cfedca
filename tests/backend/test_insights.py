"""What the lab reads of rounds."""

from __future__ import annotations

import pytest

from backend.insights import Insights
from db.models import Round
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock


@pytest.mark.parametrize(
    ("losses", "first", "last"),
    [
        ([0.7], 0.7, 0.7),
        ([0.9, 0.7, 6.0, 0.2, 0.5, 0.3, 0.1], 7.6 / 3, 0.9 / 3),
        ([], None, None),
    ],
)
def test_a_rounds_loss_is_a_mean_over_thirds_of_its_steps(
    database: Database,
    clock: Clock,
    losses: list[float],
    first: float | None,
    last: float | None,
) -> None:
    judged = Judged(database, clock)
    number = judged.round(judged.version(), [])
    with judged.database.write() as session:
        row = session.get_one(Round, number)
        row.curve = [{"loss": loss, "accuracy": float(loss < 0.4)} for loss in losses]
    insights = Insights(judged.database, identity="base", live_version=lambda: 1, min_choices=5)
    (told,) = insights.lab().rounds
    assert told.loss_first == pytest.approx(first)
    assert told.loss_last == pytest.approx(last)
    right = [loss < 0.4 for loss in losses[-3:]]
    assert told.accuracy_last == (pytest.approx(sum(right) / len(right)) if right else None)
