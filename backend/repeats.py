"""Now and then an earlier pair once more, sides swapped: would the user choose the same again?

A repeat shows the very responses of the first time, so it needs no model. It says how steady a
user's choices are; it is never trained on, scored or counted as evidence.

Knows nothing of pages and engines.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime

from sqlalchemy.orm import Session

from db.models import Comparison, Response
from db.queries import desk as queries
from db.session import Database

_APART = 10  # judged since then, so that the first choice is not simply remembered
_POOL = 200
_OTHER_SIDE = {"A": "B", "B": "A"}


class Repeats:
    """Hands users pairs of their own once more.

    Args:
        share: of all comparisons; 0 turns repeats off.
    """

    def __init__(
        self,
        database: Database,
        *,
        share: float,
        clock: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self._database = database
        self._share = share
        self._clock = clock
        self._rng = rng

    def hand_over(self, user_id: int) -> bool:
        """Draw whether the next comparison is a repeat; store it then, not shown yet."""
        if not self._share or self._rng.random() >= self._share:
            return False
        with self._database.write() as session:
            earlier = queries.repeatable_ids(session, user_id, apart=_APART, limit=_POOL)
            if not earlier:
                return False
            first = queries.with_responses(session, self._rng.choice(earlier))
            copy_comparison(session, first, user_id, swapped=True, now=self._clock(), repeat=True)
        return True


def copy_comparison(
    session: Session,
    original: Comparison,
    user_id: int,
    *,
    swapped: bool,
    now: datetime,
    repeat: bool = False,
) -> None:
    """The same responses for `user_id`, not shown yet; all that made them stays with them."""
    copy = Comparison(
        user_id=user_id,
        prompt_id=original.prompt_id,
        purpose=original.purpose,
        repeat_of_id=original.id if repeat else None,
        created_at=now,
    )
    session.add(copy)
    session.flush()
    for response in original.responses:
        side = _OTHER_SIDE[response.side] if swapped else response.side
        session.add(_copied(response, copy.id, side))


def _copied(response: Response, comparison_id: int, side: str) -> Response:
    kept = {
        column.key: getattr(response, column.key)
        for column in Response.__table__.columns
        if column.key not in {"id", "comparison_id", "side"}
    }
    return Response(comparison_id=comparison_id, side=side, **kept)
