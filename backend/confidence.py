"""Intervals for shares that stay valid however often somebody looks: a betting confidence sequence.

Waudby-Smith & Ramdas, "Estimating means of bounded random variables by betting" (JRSS-B 2024,
arXiv 2010.09686), hedged capital with a grid of bets (there: hgKelly). For each mean m, half of a
wealth of 1 is bet on outcomes above m and half on outcomes below, at odds that are fair if m is the
mean. So m is refuted once either half has grown to 1/alpha, and over all moments together the true
mean is ever refuted with probability at most alpha: peeking costs nothing.

Each half is spread over bettors who always stake the same fraction, so the order of the outcomes
does not matter and the observed share is never refuted. That is why this form was taken: with bets
that shrink over time, and with the intersection over time, an interval can lose sight of a share
that moves, as it does while somebody is being learnt. For such a share it is about the average.

Outcomes are 0, ½ or 1. Pure: knows nothing of choices and databases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ALPHA = 0.05
# Fractions of the wealth at stake: small ones serve long streams, large ones short and clear ones.
_STAKES: Floats = np.geomspace(0.02, 0.95, 12)
_HALVINGS = 24  # of [0, 1]: ends to 6e-8


@dataclass(frozen=True, slots=True)
class Tally:
    """How often an outcome was 1, ½ and 0."""

    wins: int
    halves: int
    losses: int

    @property
    def count(self) -> int:
        return self.wins + self.halves + self.losses

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.wins + other.wins, self.halves + other.halves, self.losses + other.losses)


@dataclass(frozen=True, slots=True)
class Interval:
    """Where a share lies, both ends included."""

    low: float
    high: float


@lru_cache(maxsize=4096)
def interval(tally: Tally, alpha: float = ALPHA) -> Interval:
    """The interval for the mean outcome; [0, 1] before the first one.

    Raises:
        ValueError: a count is negative, or `alpha` is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError("alpha must lie between 0 and 1")
    if min(tally.wins, tally.halves, tally.losses) < 0:
        raise ValueError("counts must not be negative")
    # Losses are the mirror image of wins, so swapping them swaps the ends.
    mirrored = Tally(tally.losses, tally.halves, tally.wins)
    return Interval(_lower_end(tally, alpha), 1 - _lower_end(mirrored, alpha))


def refuting(alpha: float) -> float:
    """The log wealth, grown from 1, that refutes a mean: each side has half of the whole."""
    return math.log(2 / alpha)


def log_wealth(wins: Floats, halves: Floats, losses: Floats, mean: float) -> Floats:
    """Log wealth, from 1, of those who bet on outcomes above `mean`, in (0, 1); elementwise.

    A stake f at fair odds multiplies wealth by 1 - f + f·outcome/mean.
    """
    each = (
        np.multiply.outer(wins, np.log1p(_STAKES * (1 / mean - 1)))
        + np.multiply.outer(halves, np.log1p(_STAKES * (0.5 / mean - 1)))
        + np.multiply.outer(losses, np.log1p(-_STAKES))
    )
    richest = each.max(axis=-1, keepdims=True)
    total: Floats = np.log(np.exp(each - richest).mean(axis=-1)) + richest[..., 0]
    return total


def _lower_end(tally: Tally, alpha: float) -> float:
    """The mean below which all are refuted from above.

    Wealth falls as the mean grows, so it is found by halving. The end returned is the refuted one:
    rounding widens the interval.
    """
    wins, halves, losses = (
        np.array(float(count)) for count in (tally.wins, tally.halves, tally.losses)
    )
    gone, standing = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (gone + standing) / 2
        if log_wealth(wins, halves, losses, middle) >= refuting(alpha):
            gone = middle
        else:
            standing = middle
    return gone
