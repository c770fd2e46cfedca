"""What a comparison will be, decided before a token is generated. Pure but for its random numbers.

Knows nothing of users, texts and databases.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from backend.engines.base import Condition
from backend.styles import Style, draw_styles
from backend.taste_model import STRANGER, TasteModel

_MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison will be: decided before a token is generated.

    Attributes:
        purpose: `learn` (two samples, personal or in two styles), `blind` (personal against
            generic, never trained on) or `base` (personal against the untouched base model).
        conditions: of sides A and B, in this order.
        seeds: likewise.
        styles: likewise; None answers as it comes.
    """

    purpose: str
    conditions: tuple[Condition, Condition]
    seeds: tuple[int, int]
    styles: tuple[Style | None, Style | None] = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How often which kind of comparison is made.

    Attributes:
        blind: personal against generic, of all.
        base: personal against the base model, of all.
        varied: two styles side by side, of the rest.
    """

    blind: float
    base: float
    varied: float = 0.0


def draw_plan(
    rng: random.Random,
    shares: Shares,
    styles: Sequence[Style] = (),
    taste: TasteModel = STRANGER,
    *,
    styled: Condition = Condition.PERSONAL,
) -> Plan:
    """Draw why a comparison is made, its conditions, sides and styles. Pure but for `rng`.

    Args:
        styled: condition of both sides of a pair in two styles.
    """
    draw = rng.random()
    if draw < shares.blind:
        purpose, other = "blind", Condition.GENERIC
    elif draw < shares.blind + shares.base:
        purpose, other = "base", Condition.BASE
    else:
        purpose, other = "learn", Condition.PERSONAL
    conditions = (Condition.PERSONAL, other)
    if rng.random() < 0.5:
        conditions = (other, Condition.PERSONAL)
    drawn: tuple[Style | None, Style | None] = (None, None)
    if purpose == "learn" and len(styles) > 1 and rng.random() < shares.varied:
        liked, other_liked = draw_styles(styles, taste, rng)
        drawn = (liked, other_liked) if rng.random() < 0.5 else (other_liked, liked)
        conditions = (styled, styled)
    seeds = (draw_seed(rng), draw_seed(rng))
    return Plan(purpose, conditions, seeds, drawn)


def draw_shared_plan(rng: random.Random, styles: Sequence[Style]) -> Plan:
    """A pair for many: both sides under e₀, in two styles drawn alike for everybody."""
    first, second = rng.sample(list(styles), 2)
    seeds = (draw_seed(rng), draw_seed(rng))
    return Plan("learn", (Condition.GENERIC, Condition.GENERIC), seeds, (first, second))


def draw_seed(rng: random.Random) -> int:
    """What fixes one response's sampling."""
    return rng.randrange(_MAX_SEED)
