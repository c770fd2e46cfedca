"""What users set for themselves at the desk: topics, key shortcuts; how far today's work is.

Knows nothing of pages and pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.errors import InvalidInput
from backend.wording import msg
from db.queries import desk as queries
from db.session import Database

UNKNOWN_TOPIC = msg("There is no topic of that name.")
_FARTHEST_OFFSET_MINUTES = 14 * 60


@dataclass(frozen=True, slots=True)
class Preferences:
    """One user's.

    Attributes:
        topics: every topic there is.
        liked: those the user wants more of; empty means no preference.
    """

    keys: bool
    topics: tuple[str, ...]
    liked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Today:
    """Choices made today, in the user's own time zone, of so many meant to be made."""

    done: int
    goal: int


class DeskPreferences:
    """Reads and writes them; every method takes the signed-in user's id."""

    def __init__(
        self, database: Database, *, clock: Callable[[], datetime], daily_goal: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._daily_goal = daily_goal

    def of(self, user_id: int) -> Preferences:
        """What the user has set."""
        with self._database.read() as session:
            user = queries.user(session, user_id)
            topics = tuple(queries.bank_topics(session))
        liked = tuple(topic for topic in user.liked_topics or () if topic in topics)
        return Preferences(keys=not user.keys_off, topics=topics, liked=liked)

    def use_keys(self, user_id: int, on: bool) -> None:
        """Turn the compare page's key shortcuts on or off."""
        with self._database.write() as session:
            queries.user(session, user_id).keys_off = not on

    def like(self, user_id: int, topics: Sequence[str]) -> None:
        """Ask for more prompts of these topics; none means no preference.

        Raises:
            InvalidInput: the bank has no such topic.
        """
        with self._database.write() as session:
            known = queries.bank_topics(session)
            if not set(topics) <= set(known):
                raise InvalidInput(UNKNOWN_TOPIC)
            queries.user(session, user_id).liked_topics = sorted(set(topics)) or None

    def today(self, user_id: int, utc_offset_minutes: int = 0) -> Today:
        """Today's choices that stand.

        Args:
            utc_offset_minutes: how far the user's clock is ahead of UTC; says when the day began.
        """
        farthest = _FARTHEST_OFFSET_MINUTES
        offset = timedelta(minutes=max(-farthest, min(farthest, utc_offset_minutes)))
        local = self._clock() + offset
        since = local.replace(hour=0, minute=0, second=0, microsecond=0) - offset
        with self._database.read() as session:
            done = queries.count_choices_since(session, user_id, since)
            goal = queries.user(session, user_id).daily_goal
        return Today(done, self._daily_goal if goal is None else goal)
