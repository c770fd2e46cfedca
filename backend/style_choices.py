"""Choices between styles in the database → how each style has fared with a user.

The styles that a user gets to see are drawn from this, and the styled user model counts it into the
user's vector. A style that is no longer among Attune's is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from backend.styles import Record, Style, with_directions
from db.queries import comparisons as queries
from db.queries import rounds as round_queries
from trainer.types import StyleRecord


def records_of(session: Session, user_id: int, *, before: int | None = None) -> dict[str, Record]:
    """By style name, from all of this user's standing choices between two styles.

    Args:
        before: only choices made before this one (of any user).
    """
    earlier = () if before is None else (queries.made_before(before),)
    return _counted(queries.style_choices(session, user_id, *earlier))


def records_for_round(
    session: Session, styles: Sequence[Style], users: Collection[int], unscored_until: datetime
) -> dict[int, StyleRecord]:
    """What a round is told: the style without a wish first, then in the order of directions.

    Args:
        unscored_until: leave out choices made later than this that have no prequential score yet:
            the score must not be given by a version that knows the choice.
    """
    ordered = [*(style for style in styles if not style.wish), *with_directions(styles)]
    rows: dict[int, StyleRecord] = {}
    for user in sorted(set(users)):
        records = _counted(round_queries.usable_style_choices(session, user, unscored_until))
        known = [records.get(style.name, Record()) for style in ordered]
        rows[user] = tuple((record.won, record.lost) for record in known)
    return rows


def _counted(judged: Sequence[tuple[str, str]]) -> dict[str, Record]:
    won, lost = Counter(w for w, _ in judged), Counter(x for _, x in judged)
    return {name: Record(won[name], lost[name]) for name in won.keys() | lost.keys()}
