"""What a user does with a pair that is there: choose, explain, undo, never again.

Every method takes the signed-in user's id and checks ownership itself; nothing the browser sends
is trusted. Knows nothing of pages, models and training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend.comparison_views import ComparisonView, view_of
from backend.engines.base import Condition
from backend.errors import Conflict, InvalidInput, NotFound
from backend.typed_text import storable
from backend.wording import msg
from db.models import Choice, Comparison
from db.queries import comparisons as queries
from db.queries import desk as desk_queries
from db.session import Database

VERDICTS = ("a", "b", "tie", "both_bad", "skip")
PREFERENCES = ("a", "b")
MOST_REASON_CHARACTERS = 500
_LONGEST_LOOK = timedelta(days=1)  # a pair that stood open for longer was not looked at
_UNKNOWN_VERDICT = msg("That is not one of the answers.")
_UNKNOWN_STRENGTH = msg("The strength is either slightly or clearly.")
_NOT_YOURS = msg("This pair is not yours to judge. Here is your own.")
_ANSWERED = msg("You have answered this pair already. Here is the next one.")
_REASON_LENGTH = msg("A reason has 1 to {most} characters.")
_NOT_YOUR_CHOICE = msg("That choice is not yours.")
_CHOICE_CHANGED = msg("That choice has changed since. Nothing was added to it.")
_NO_STRENGTH = msg("Only a preference can be clear.")
_NOTHING_TO_UNDO = msg("There is nothing to undo.")


class Choosing:
    """The choices of the desk.

    Args:
        reveal: whether a user may be told, after choosing, which side was whose.
    """

    def __init__(
        self, database: Database, *, clock: Callable[[], datetime], reveal: bool = False
    ) -> None:
        self._database = database
        self._clock = clock
        self._reveal = reveal

    def choose(
        self, user_id: int, comparison_id: int, verdict: str, strength: int | None = None
    ) -> int:
        """Record a choice; returns its id once it is committed.

        Raises:
            InvalidInput: unknown verdict or strength.
            NotFound: no such comparison of this user, or it was never shown.
            Conflict: it has been answered already.
        """
        with _one_answer(), self._database.write() as session:
            comparison = self._to_judge(session, user_id, comparison_id, verdict, strength)
            choice = self._record(session, comparison, verdict, strength)
            choice.decided_ms = self._decided_ms(comparison)
        return choice.id

    def choose_kept(
        self, user_id: int, comparison_id: int, verdict: str, strength: int | None = None
    ) -> int:
        """The same for a choice the browser kept while it could not be sent.

        It may have arrived the first time: then the same choice once more changes nothing. How long
        it took to decide is not known.

        Raises:
            As `choose`.
        """
        with _one_answer(), self._database.write() as session:
            comparison = self._to_judge(session, user_id, comparison_id, verdict, strength)
            standing = queries.effective_choice(session, comparison.id)
            if standing is not None and standing.verdict == verdict:
                return standing.id
            return self._record(session, comparison, verdict, strength).id

    def never_again(self, user_id: int, comparison_id: int) -> int:
        """Skip this pair and never issue its prompt to this user again; returns the skip's id.

        Raises:
            As `choose`.
        """
        with _one_answer(), self._database.write() as session:
            comparison = self._to_judge(session, user_id, comparison_id, "skip", None)
            choice = self._record(session, comparison, "skip", None)
            desk_queries.refuse_prompt(session, user_id, comparison.prompt_id, self._clock())
        return choice.id

    def explain(self, user_id: int, choice_id: int, reason: str) -> int:
        """Say why: the choice is superseded by the same verdict with a reason; returns its id.

        Raises:
            InvalidInput: the reason is empty or too long.
            NotFound: no such choice of this user. Conflict: it does not stand any more.
        """
        trimmed = storable(reason)
        if not trimmed or len(trimmed) > MOST_REASON_CHARACTERS:
            raise InvalidInput(_REASON_LENGTH, most=MOST_REASON_CHARACTERS)
        with _one_answer(), self._database.write() as session:
            old = self._standing(session, user_id, choice_id)
            new = self._successor(session, old, old.verdict)
            new.strength, new.decided_ms, new.reason = old.strength, old.decided_ms, trimmed
        return new.id

    def strengthen(self, user_id: int, choice_id: int) -> int:
        """Say afterwards that it was clear: superseded by the same verdict; returns its id.

        Raises:
            NotFound: no such choice of this user. Conflict: it does not stand any more.
            InvalidInput: it preferred neither response.
        """
        with _one_answer(), self._database.write() as session:
            old = self._standing(session, user_id, choice_id)
            if old.verdict not in PREFERENCES:
                raise InvalidInput(_NO_STRENGTH)
            new = self._successor(session, old, old.verdict)
            new.strength, new.decided_ms, new.reason = 2, old.decided_ms, old.reason
        return new.id

    def undo(self, user_id: int) -> ComparisonView:
        """Take the last choice back; its pair is open again.

        Raises:
            NotFound: there is no choice to take back. Conflict: another tab was quicker.
        """
        with _one_answer(), self._database.write() as session:
            last = queries.last_standing_choice(session, user_id)
            if last is None:
                raise NotFound(_NOTHING_TO_UNDO)
            self._successor(session, last, "withdrawn")
            comparison = queries.comparison_of(session, user_id, last.comparison_id)
            assert comparison is not None  # choices have their user's comparison
            comparison.shown_at = self._clock()
            if last.verdict == "skip":
                desk_queries.accept_prompt(session, user_id, comparison.prompt_id)
            return view_of(comparison)

    def reveal(self, user_id: int, choice_id: int) -> tuple[Condition, Condition] | None:
        """Whose sides A and B were, if the study tells; noted, as the pair is blind no more.

        Raises:
            NotFound: no such choice of this user. Conflict: it does not stand any more.
        """
        if not self._reveal:
            return None
        with self._database.write() as session:
            choice = self._standing(session, user_id, choice_id)
            comparison = queries.comparison_of(session, user_id, choice.comparison_id)
            assert comparison is not None
            if comparison.revealed_at is None:
                comparison.revealed_at = self._clock()
            first, second = comparison.responses
            return Condition(first.condition), Condition(second.condition)

    def _to_judge(
        self,
        session: Session,
        user_id: int,
        comparison_id: int,
        verdict: str,
        strength: int | None,
    ) -> Comparison:
        """The user's comparison, shown, and an answer that fits it."""
        check_answer(verdict, strength)
        comparison = queries.comparison_of(session, user_id, comparison_id)
        if comparison is None or comparison.shown_at is None:
            raise NotFound(_NOT_YOURS)
        return comparison

    def _record(
        self, session: Session, comparison: Comparison, verdict: str, strength: int | None
    ) -> Choice:
        previous = queries.effective_choice(session, comparison.id)
        if previous is not None and previous.verdict != "withdrawn":
            raise Conflict(_ANSWERED)
        choice = Choice(
            comparison_id=comparison.id,
            user_id=comparison.user_id,
            verdict=verdict,
            strength=strength,
            supersedes_id=previous.id if previous else None,
            created_at=self._clock(),
        )
        session.add(choice)
        session.flush()
        return choice

    def _decided_ms(self, comparison: Comparison) -> int | None:
        """From shown to chosen; None where a clock was set, or a pair left open, in between."""
        assert comparison.shown_at is not None
        taken = self._clock() - comparison.shown_at
        if not timedelta(0) <= taken <= _LONGEST_LOOK:
            return None
        return int(taken.total_seconds() * 1000)

    def _standing(self, session: Session, user_id: int, choice_id: int) -> Choice:
        """A choice of this user that stands."""
        standing = self._standing_verdict(session, user_id, choice_id)
        if standing.id != choice_id:
            raise Conflict(_CHOICE_CHANGED)
        return standing

    def _standing_verdict(self, session: Session, user_id: int, choice_id: int) -> Choice:
        """The same where a reason or a strength may have been added to the verdict since."""
        given = queries.choice_of(session, user_id, choice_id)
        if given is None:
            raise NotFound(_NOT_YOUR_CHOICE)
        standing = queries.effective_choice(session, given.comparison_id)
        if standing is None or standing.verdict != given.verdict or given.verdict == "withdrawn":
            raise Conflict(_CHOICE_CHANGED)
        return standing

    def _successor(self, session: Session, old: Choice, verdict: str) -> Choice:
        new = Choice(
            comparison_id=old.comparison_id,
            user_id=old.user_id,
            verdict=verdict,
            supersedes_id=old.id,
            created_at=self._clock(),
        )
        session.add(new)
        session.flush()
        return new


def check_answer(verdict: str, strength: int | None) -> None:
    """Raises InvalidInput for what is no answer."""
    if verdict not in VERDICTS:
        raise InvalidInput(_UNKNOWN_VERDICT)
    if strength not in (None, 1, 2):
        raise InvalidInput(_UNKNOWN_STRENGTH)


@contextmanager
def _one_answer() -> Iterator[None]:
    """Turn the unique index that stops a second choice into the message a person reads."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict(_ANSWERED) from error
