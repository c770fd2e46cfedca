"""Anytime-valid intervals: small cases, symmetry, and the coverage they promise under peeking."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.confidence import ALPHA, Interval, Tally, interval, log_wealth, refuting

COUNTS = st.builds(Tally, *(st.integers(0, 3000) for _ in range(3)))


def test_nothing_seen_says_nothing() -> None:
    assert interval(Tally(0, 0, 0)) == Interval(0.0, 1.0)


def test_one_bettors_wealth_by_hand() -> None:
    """At mean ¼, a stake f makes 1 + 3f of a win, 1 + f of a half and 1 - f of a loss."""
    stakes = np.geomspace(0.02, 0.95, 12)
    expected = math.log(np.mean((1 + 3 * stakes) ** 2 * (1 + stakes) * (1 - stakes) ** 3))
    one, two, three = (np.array(float(n)) for n in (1, 2, 3))
    assert float(log_wealth(two, one, three, 0.25)) == pytest.approx(expected)


def test_the_end_is_where_the_wealth_refutes() -> None:
    low = interval(Tally(14, 2, 4)).low
    wealth = [
        float(log_wealth(np.array(14.0), np.array(2.0), np.array(4.0), mean))
        for mean in (low, low + 1e-6)
    ]
    assert wealth[0] >= refuting(ALPHA) > wealth[1]
    assert refuting(0.05) == pytest.approx(math.log(40))


def test_few_outcomes_are_no_evidence_and_many_are() -> None:
    assert interval(Tally(3, 0, 0)).low < 0.5
    assert interval(Tally(12, 0, 0)).low > 0.5
    assert interval(Tally(60, 0, 40)).low < 0.5 < interval(Tally(600, 0, 400)).low
    assert interval(Tally(0, 1000, 0)).high - interval(Tally(0, 1000, 0)).low < 0.01


@given(COUNTS)
def test_never_empty_and_around_what_was_seen(tally: Tally) -> None:
    ends = interval(tally)
    assert 0 <= ends.low <= ends.high <= 1
    if tally.count:
        seen = (tally.wins + tally.halves / 2) / tally.count
        assert ends.low <= seen <= ends.high


@given(COUNTS)
def test_losses_are_the_mirror_of_wins(tally: Tally) -> None:
    ends, mirrored = interval(tally), interval(Tally(tally.losses, tally.halves, tally.wins))
    assert mirrored.low == pytest.approx(1 - ends.high)
    assert mirrored.high == pytest.approx(1 - ends.low)


@given(COUNTS)
def test_a_stricter_interval_holds_the_laxer_one(tally: Tally) -> None:
    strict, lax = interval(tally, 0.01), interval(tally, 0.1)
    assert strict.low <= lax.low <= lax.high <= strict.high


@pytest.mark.parametrize(
    ("win", "half"), [(0.5, 0.0), (0.75, 0.0), (0.95, 0.0), (0.5, 0.3), (0.2, 0.6)]
)
def test_peeking_after_every_outcome_misses_the_truth_rarely(win: float, half: float) -> None:
    """400 streams of 200 outcomes, looked at each time: at most alpha of them ever err."""
    draws = np.random.default_rng(7).random((400, 200))
    wins = (draws < win).cumsum(axis=1).astype(float)
    halves = ((draws >= win) & (draws < win + half)).cumsum(axis=1).astype(float)
    losses = np.arange(1, 201) - wins - halves
    truth = win + half / 2
    richest = np.maximum(
        log_wealth(wins, halves, losses, truth), log_wealth(losses, halves, wins, 1 - truth)
    )
    missed = float((richest >= refuting(ALPHA)).any(axis=1).mean())
    assert missed <= ALPHA + 0.02
    # … and it is not by saying nothing that they do not err.
    last = interval(Tally(int(wins[0, -1]), int(halves[0, -1]), int(losses[0, -1])))
    assert last.high - last.low < 0.3


def test_impossible_counts_and_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        interval(Tally(3, -1, 0))
    with pytest.raises(ValueError, match="alpha"):
        interval(Tally(1, 1, 1), 0.0)
