"""Every choice a user has made: listed, searched, changed.

A change is a new choice that supersedes the old one; rounds and figures go by the one that stands.
Never says under which condition a response was made: that is the comparison page's to reveal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import IntegrityError

from backend.choosing import MOST_REASON_CHARACTERS, PREFERENCES, check_answer
from backend.comparison_views import Message
from backend.errors import Conflict, InvalidInput, NotFound
from backend.prompts import messages_of
from backend.typed_text import storable
from backend.wording import msg
from db.models import Choice
from db.queries import history as queries
from db.queries.history import Standing
from db.session import Database

_MOST_SEARCH_CHARACTERS = 200
_LONG_REASON = msg("A reason has at most {most} characters.")
_NOT_YOURS = msg("That choice is not yours.")
_CHANGED = msg("That choice was changed elsewhere meanwhile. Here is how it stands now.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceRow:
    """One line of the list.

    Attributes:
        strength: 1 slightly, 2 clearly; None for what is no preference.
    """

    comparison_id: int
    prompt: str
    verdict: str
    strength: int | None
    reason: str
    chosen_at: datetime


@dataclass(frozen=True, slots=True)
class HistoryPage:
    """Some lines of the list, and where they stand in it.

    Attributes:
        first: number of the first line, from 1; 0 where there is none.
        count: lines of the whole list.
    """

    rows: tuple[ChoiceRow, ...]
    first: int
    count: int

    @property
    def last(self) -> int:
        """Number of the last line."""
        return self.first + len(self.rows) - 1 if self.rows else 0


@dataclass(frozen=True, slots=True)
class ChoiceView:
    """One choice with the pair it judges.

    Attributes:
        choice_id: the row that stands, which a change supersedes.
        earlier: the turns before the prompt.
    """

    choice_id: int
    row: ChoiceRow
    text_a: str
    text_b: str
    earlier: tuple[Message, ...] = ()


class History:
    """The use cases. Every one checks whose choice it is."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def page(self, user_id: int, search: str, *, offset: int, limit: int) -> HistoryPage:
        """Some of this user's choices, last seen first; past the end, the last page."""
        sought = storable(search)[:_MOST_SEARCH_CHARACTERS]
        with self._database.read() as session:
            count = queries.count_standing(session, user_id, sought)
            begin = max(0, min(offset, (count - 1) // limit * limit))
            found = queries.standing_choices(session, user_id, sought, offset=begin, limit=limit)
            rows = tuple(_row(standing) for standing in found)
        return HistoryPage(rows, begin + 1 if rows else 0, count)

    def view(self, user_id: int, comparison_id: int) -> ChoiceView:
        """One choice with its pair.

        Raises:
            NotFound: no such choice of this user, or it was taken back.
        """
        with self._database.read() as session:
            standing = queries.standing_choice(session, user_id, comparison_id)
            if standing is None:
                raise NotFound(_NOT_YOURS)
            first, second = standing.comparison.responses
            return ChoiceView(
                standing.choice.id,
                _row(standing),
                first.text,
                second.text,
                messages_of(standing.comparison.prompt)[:-1],
            )

    def change(
        self,
        user_id: int,
        comparison_id: int,
        choice_id: int,
        *,
        verdict: str,
        strength: int | None = None,
        reason: str = "",
    ) -> None:
        """Supersede a choice; as it stands already, nothing happens.

        Args:
            choice_id: the choice as the user saw it.

        Raises:
            InvalidInput: unknown verdict or strength, or too long a reason.
            NotFound: no such choice of this user. Conflict: it does not stand any more.
        """
        wanted = _checked(verdict, strength, reason)
        try:
            with self._database.write() as session:
                standing = queries.standing_choice(session, user_id, comparison_id)
                if standing is None:
                    raise NotFound(_NOT_YOURS)
                old = standing.choice
                if old.id != choice_id:
                    raise Conflict(_CHANGED)
                if wanted == (old.verdict, old.strength, old.reason):
                    return
                session.add(
                    Choice(
                        comparison_id=comparison_id,
                        user_id=user_id,
                        verdict=wanted[0],
                        strength=wanted[1],
                        reason=wanted[2],
                        decided_ms=old.decided_ms,  # of the first look at the pair
                        supersedes_id=old.id,
                        created_at=self._clock(),
                    )
                )
        except IntegrityError as error:
            raise Conflict(_CHANGED) from error


def _checked(verdict: str, strength: int | None, reason: str) -> tuple[str, int | None, str | None]:
    check_answer(verdict, strength)
    trimmed = storable(reason)
    if len(trimmed) > MOST_REASON_CHARACTERS:
        raise InvalidInput(_LONG_REASON, most=MOST_REASON_CHARACTERS)
    return verdict, strength if verdict in PREFERENCES else None, trimmed or None


def _row(standing: Standing) -> ChoiceRow:
    choice = standing.choice
    return ChoiceRow(
        comparison_id=standing.comparison.id,
        prompt=standing.comparison.prompt.text,
        verdict=choice.verdict,
        strength=choice.strength,
        reason=choice.reason or "",
        chosen_at=choice.created_at,
    )
