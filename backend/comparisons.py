"""What a user does with comparisons: get one, choose, explain, undo, ask an own question.

Every method takes the signed-in user's id and checks ownership itself; nothing the browser sends
is trusted. Knows nothing of pages, models and training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend import prompts
from backend.engines.base import Priority
from backend.errors import Conflict, InvalidInput, NotFound
from backend.making import Maker, Making, PromptText
from db.models import Choice, Comparison, Prompt
from db.queries import comparisons as queries
from db.session import Database

VERDICTS = ("a", "b", "tie", "both_bad", "skip")
_MAX_REASON_CHARS = 500
_GENERATION_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class ComparisonView:
    """What the page may know of a comparison: texts by side, never their conditions.

    Attributes:
        comparison_id: None while it is still being made.
        own: the prompt is the user's own.
        complete: both texts are final and a choice may be made.
    """

    comparison_id: int | None
    topic: str
    prompt: str
    own: bool
    text_a: str
    text_b: str
    complete: bool


class Desk:
    """The annotator's use cases.

    Args:
        pair_taken: called with the user's id when a next one will be wanted.
        priority: of the comparisons that stream in.
    """

    def __init__(
        self,
        database: Database,
        maker: Maker,
        *,
        max_prompt_chars: int,
        clock: Callable[[], datetime],
        rng: random.Random,
        pair_taken: Callable[[int], None],
        priority: Priority = Priority.INTERACTIVE,
    ) -> None:
        self._database = database
        self._maker = maker
        self._max_prompt_chars = max_prompt_chars
        self._clock = clock
        self._rng = rng
        self._pair_taken = pair_taken
        self._priority = priority

    def ready(self, user_id: int) -> ComparisonView | None:
        """The open comparison, or a prefetched one (now shown); None when neither exists."""
        with self._database.read() as session:
            seen = queries.open_comparison(session, user_id)
            if seen is not None:
                return _view(seen)
        return self._show_next(user_id)

    def stream(self, user_id: int) -> Iterator[ComparisonView]:
        """The open comparison at once, else one streaming in; the last view is complete.

        Raises:
            Unavailable: the model failed, or there is no prompt.
        """
        view = self.ready(user_id)
        if view is not None:
            self._pair_taken(user_id)
            yield view
            return
        under_way = self._maker.under_way(user_id)
        if not under_way and self._maker.hand_over(user_id):
            handed = self._show_next(user_id)
            if handed is not None:
                yield handed
                return
        making = under_way[0] if under_way else self._start_from_bank(user_id)
        yield from self._watch(user_id, making)

    def ask(self, user_id: int, text: str) -> Iterator[ComparisonView]:
        """A comparison for the user's own prompt, streaming in; the last view is complete.

        The comparison that was open stays open and comes back afterwards.

        Raises:
            InvalidInput: empty or too long. Unavailable: the model failed.
        """
        checked = prompts.checked_own_text(text, self._max_prompt_chars)
        with self._database.write() as session:
            prompt = Prompt(
                text=checked,
                topic=prompts.OWN_TOPIC,
                owner_id=user_id,
                created_at=self._clock(),
            )
            session.add(prompt)
            session.flush()
            own = _prompt_text(prompt)
        try:
            making = self._maker.start(user_id, own, self._priority, shown=True)
        except ValueError as error:
            raise InvalidInput("That is too long for this model. Please shorten it.") from error
        yield from self._watch(user_id, making)

    def choose(
        self, user_id: int, comparison_id: int, verdict: str, strength: int | None = None
    ) -> int:
        """Record a choice; returns its id once it is committed.

        Raises:
            InvalidInput: unknown verdict or strength.
            NotFound: no such comparison of this user, or it was never shown.
            Conflict: it has been answered already.
        """
        if verdict not in VERDICTS:
            raise InvalidInput("That is not one of the answers.")
        if strength not in (None, 1, 2):
            raise InvalidInput("The strength is either slightly or clearly.")
        now = self._clock()
        with _one_answer(), self._database.write() as session:
            comparison = queries.comparison_of(session, user_id, comparison_id)
            if comparison is None or comparison.shown_at is None:
                raise NotFound("This pair is not yours to judge. Here is your own.")
            previous = queries.effective_choice(session, comparison_id)
            if previous is not None and previous.verdict != "withdrawn":
                raise Conflict("You have answered this pair already. Here is the next one.")
            choice = Choice(
                comparison_id=comparison_id,
                user_id=user_id,
                verdict=verdict,
                strength=strength,
                decided_ms=int((now - comparison.shown_at).total_seconds() * 1000),
                supersedes_id=previous.id if previous else None,
                created_at=now,
            )
            session.add(choice)
            session.flush()
        return choice.id

    def explain(self, user_id: int, choice_id: int, reason: str) -> int:
        """Say why: the choice is superseded by the same verdict with a reason; returns its id.

        Raises:
            InvalidInput: the reason is empty or too long.
            NotFound: no such choice of this user. Conflict: it does not stand any more.
        """
        trimmed = reason.strip()
        if not trimmed or len(trimmed) > _MAX_REASON_CHARS:
            raise InvalidInput(f"A reason has 1 to {_MAX_REASON_CHARS} characters.")
        with _one_answer(), self._database.write() as session:
            old = queries.choice_of(session, user_id, choice_id)
            if old is None:
                raise NotFound("That choice is not yours.")
            standing = queries.effective_choice(session, old.comparison_id)
            if standing is None or standing.id != old.id or old.verdict == "withdrawn":
                raise Conflict("That choice has changed since. Your reason was not added.")
            new = self._successor(session, old, old.verdict)
            new.strength, new.decided_ms, new.reason = old.strength, old.decided_ms, trimmed
        return new.id

    def undo(self, user_id: int) -> ComparisonView:
        """Take the last choice back; its pair is open again.

        Raises:
            NotFound: there is no choice to take back. Conflict: another tab was quicker.
        """
        with _one_answer(), self._database.write() as session:
            last = queries.last_standing_choice(session, user_id)
            if last is None:
                raise NotFound("There is nothing to undo.")
            self._successor(session, last, "withdrawn")
            comparison = queries.comparison_of(session, user_id, last.comparison_id)
            assert comparison is not None  # choices have their user's comparison
            comparison.shown_at = self._clock()
            return _view(comparison)

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

    def _show_next(self, user_id: int) -> ComparisonView | None:
        with self._database.write() as session:
            comparison = queries.next_prefetched(session, user_id)
            if comparison is None:
                return None
            comparison.shown_at = self._clock()
            view = _view(comparison)
        self._pair_taken(user_id)
        return view

    def _start_from_bank(self, user_id: int) -> Making:
        prompt = bank_prompt(self._database, self._maker, user_id, self._rng)
        return self._maker.start(user_id, prompt, self._priority, shown=True)

    def _watch(self, user_id: int, making: Making) -> Iterator[ComparisonView]:
        """Views of a comparison being made, then the stored one."""
        prompt = making.prompt
        for text_a, text_b in making.texts():
            yield ComparisonView(None, prompt.topic, prompt.text, prompt.own, text_a, text_b, False)
        comparison_id = making.comparison_id(_GENERATION_TIMEOUT_S)
        with self._database.write() as session:
            comparison = queries.comparison_of(session, user_id, comparison_id)
            assert comparison is not None  # it was stored a moment ago
            if comparison.shown_at is None:
                comparison.shown_at = self._clock()
            view = _view(comparison)
        self._pair_taken(user_id)
        yield view


@contextmanager
def _one_answer() -> Iterator[None]:
    """Turn the unique index that stops a second choice into the message a person reads."""
    try:
        yield
    except IntegrityError as error:
        raise Conflict("You have answered this pair already. Here is the next one.") from error


def bank_prompt(database: Database, maker: Maker, user_id: int, rng: random.Random) -> PromptText:
    """A prompt from the bank that this user has not had and is not getting right now.

    Raises:
        Unavailable: the bank is empty.
    """
    taken = [making.prompt.prompt_id for making in maker.under_way(user_id)]
    with database.read() as session:
        prompt = session.get_one(Prompt, prompts.next_prompt_id(session, user_id, taken, rng))
        return _prompt_text(prompt)


def _prompt_text(prompt: Prompt) -> PromptText:
    return PromptText(prompt.id, prompt.text, prompt.topic, prompt.owner_id is not None)


def _view(comparison: Comparison) -> ComparisonView:
    first, second = comparison.responses
    prompt = comparison.prompt
    return ComparisonView(
        comparison_id=comparison.id,
        topic=prompt.topic,
        prompt=prompt.text,
        own=prompt.owner_id is not None,
        text_a=first.text,
        text_b=second.text,
        complete=True,
    )
