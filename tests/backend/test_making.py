"""What a comparison will be is drawn fairly and in the shares asked for; then it is stored."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from backend import making
from backend.comparisons import bank_prompt
from backend.engines.base import Condition, Priority
from backend.plans import Shares, draw_plan
from backend.under_way import Making
from db.session import Database
from tests.backend.echo_house import open_house
from tests.backend.listening import ByHand
from tests.conftest import Clock

DRAWS = 4000
LIMIT_S = 20.0


def test_shares_are_kept() -> None:
    rng = random.Random(7)
    purposes = Counter(draw_plan(rng, Shares(blind=0.1, base=0.2)).purpose for _ in range(DRAWS))
    assert abs(purposes["blind"] / DRAWS - 0.1) < 0.02
    assert abs(purposes["base"] / DRAWS - 0.2) < 0.02
    assert abs(purposes["learn"] / DRAWS - 0.7) < 0.03


def test_the_personal_response_stands_on_either_side_equally_often() -> None:
    rng = random.Random(7)
    left = Counter(draw_plan(rng, Shares(blind=1, base=0)).conditions[0] for _ in range(DRAWS))
    assert set(left) == {Condition.PERSONAL, Condition.GENERIC}
    assert abs(left[Condition.PERSONAL] / DRAWS - 0.5) < 0.03


def test_conditions_fit_the_purpose_and_seeds_differ() -> None:
    rng = random.Random(7)
    others = {"learn": Condition.PERSONAL, "blind": Condition.GENERIC, "base": Condition.BASE}
    for _ in range(DRAWS):
        plan = draw_plan(rng, Shares(blind=0.3, base=0.3))
        assert sorted(plan.conditions) == sorted((Condition.PERSONAL, others[plan.purpose]))
        assert plan.seeds[0] != plan.seeds[1]
        assert all(0 <= seed < 2**63 for seed in plan.seeds)


def test_no_share_means_none() -> None:
    rng = random.Random(7)
    plans = [draw_plan(rng, Shares(blind=0, base=0)) for _ in range(200)]
    assert {plan.purpose for plan in plans} == {"learn"}


@pytest.mark.parametrize("patient", [Priority.PREFETCH, Priority.SIMULATED])
def test_pairs_nobody_waits_for_hold_up_no_storing_of_one_that_is_watched(
    database: Database,
    clock: Clock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    patient: Priority,
) -> None:
    monkeypatch.setattr(making, "_WAITERS", 2)
    engine = ByHand()
    with open_house(database, clock, tmp_path, engine=engine) as house:
        user = house.user("mia")

        def start(priority: Priority) -> Making:
            prompt = bank_prompt(database, house.maker, user, random.Random(1))
            shown = priority is not Priority.PREFETCH
            return house.maker.start(user, prompt, priority, shown=shown)

        others = [start(patient) for _ in range(3)]
        watched = start(Priority.INTERACTIVE)
        engine.calls[-1].say(["One.", "Two."])
        assert watched.comparison_id(LIMIT_S)
        assert not any(making.stored.done() for making in others)
