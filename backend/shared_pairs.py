"""The first pairs of every user are the same for all: made once under e₀, judged by many.

Where tastes are opposed over one and the same pair, nothing but the users' vectors can explain both
choices, so a few choices separate people. A pair that exists already also needs no generating. Only
bank prompts are shared, and nothing personal is in them: no vector, no profile.

Knows nothing of pages, engines and styles.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from datetime import datetime

from backend.repeats import copy_comparison
from db.queries import comparisons as queries
from db.session import Database


class SharedPairs:
    """Hands pairs made for others on to users who have just begun.

    Args:
        first: how many of a user's first comparisons are shared ones; 0 turns sharing off.
    """

    def __init__(
        self,
        database: Database,
        *,
        first: int,
        clock: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self._database = database
        self._first = first
        self._clock = clock
        self._rng = rng

    def begins(self, user_id: int) -> bool:
        """Whether the user's next comparison is one of the first."""
        if not self._first:
            return False
        with self._database.read() as session:
            return queries.count_comparisons(session, user_id) < self._first

    def hand_over(self, user_id: int, version_id: int, under_way: Collection[int]) -> bool:
        """Store a copy of somebody's shared pair, not shown yet, for this user if there is one.

        Args:
            version_id: only pairs this version made are handed over.
            under_way: prompts that are being answered for this user: nobody gets one twice.
        """
        if not self.begins(user_id):
            return False
        with self._database.write() as session:
            original = queries.shared_comparison(session, user_id, version_id, under_way)
            if original is None:
                return False
            turned = self._rng.random() < 0.5
            copy_comparison(session, original, user_id, swapped=turned, now=self._clock())
        return True
