"""Choices in the database → taste models, and the style shares that a round is told.

Blind pairs are left out: they measure, nothing learns from them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from backend.styles import Style, style_shares
from backend.taste_model import TasteModel, taste_from
from backend.traits import COUNT
from db.queries import comparisons as queries
from db.queries import rounds as round_queries
from trainer.types import StyleShares


def taste_of(
    session: Session, user_id: int, *, before: int | None = None, traits: int = COUNT
) -> TasteModel:
    """From this user's newest standing choices with a preference.

    Args:
        before: only choices made before this one (of any user).
        traits: only so many of them, the first ones.
    """
    earlier = () if before is None else (queries.made_before(before),)
    return taste_from(queries.judged_texts(session, user_id, *earlier), traits=traits)


def shares_for_round(
    session: Session, styles: Sequence[Style], users: Collection[int], unscored_until: datetime
) -> dict[int, StyleShares]:
    """User id → how much of each style goes into the vector, in the order of the directions.

    Args:
        unscored_until: leave out choices made later than this that have no prequential score yet:
            the score must not be given by a version that knows the choice.
    """
    return {
        user: style_shares(
            styles, taste_from(round_queries.usable_judged_texts(session, user, unscored_until))
        )
        for user in sorted(set(users))
    }
