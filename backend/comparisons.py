"""How users get comparisons: the next one, for a prompt of their own, for a conversation going on.

Every method takes the signed-in user's id and checks ownership itself; nothing the browser sends
is trusted. Knows nothing of pages, models and training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import datetime

from sqlalchemy.orm import Session

from backend import prompts
from backend.choosing import Choosing, check_answer
from backend.comparison_views import (
    ComparisonView,
    enough_to_judge,
    view_of,
    view_of_making,
)
from backend.engines.base import Priority
from backend.errors import Conflict, InvalidInput, NotFound, Unavailable
from backend.making import Maker
from backend.under_way import Making, PromptText
from backend.wording import msg
from db.models import Comparison, Prompt, Response, User
from db.queries import comparisons as queries
from db.session import Database
from trainer.types import Message

_GENERATION_TIMEOUT_S = 600.0
_TOO_LONG = msg("That is too long for this model. Please shorten it.")
_LONG_PROFILE = msg("What you say about yourself is too long for this model. Please shorten it.")
_GONE = msg("That pair is gone. Here is the next one.")
_TOO_EARLY = msg("One moment: there is too little to choose by yet.")
_NOT_EMPTY = msg("That response is there already.")
_NO_RESPONSE_CHOSEN = msg("Only a response you preferred can go on.")


class Desk(Choosing):
    """The annotator's use cases.

    Args:
        pair_taken: called with the user's id when a next one will be wanted.
        priority: of the comparisons that stream in.
        reveal: whether a user may be told, after choosing, which side was whose.
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
        reveal: bool = False,
    ) -> None:
        super().__init__(database, clock=clock, reveal=reveal)
        self._maker = maker
        self._max_prompt_chars = max_prompt_chars
        self._rng = rng
        self._pair_taken = pair_taken
        self._priority = priority

    def ready(self, user_id: int) -> ComparisonView | None:
        """The open comparison, or a prefetched one (now shown); None when neither exists."""
        with self._database.read() as session:
            seen = queries.open_comparison(session, user_id)
            if seen is not None:
                return view_of(seen)
        return self._show_next(user_id)

    def stream(self, user_id: int) -> Iterator[ComparisonView]:
        """The open comparison at once, else one streaming in; the last view is complete.

        Before both comes what the user asked and is still being written: a page that was loaded
        again goes on with it. It ends early when the user chooses while it is still being written.

        Raises:
            Unavailable: the model failed, or there is no prompt. InvalidInput: with the user's
            profile that prompt is too long.
        """
        under_way = [each for each in self._maker.under_way(user_id) if not each.judged]
        asked = [making for making in under_way if making.shown and making.prompt.own]
        if asked:
            yield from self._watch(asked[-1])
            return
        view = self.ready(user_id)
        if view is not None:
            self._pair_taken(user_id)
            yield view
            return
        if not under_way and self._maker.hand_over(user_id):
            handed = self._show_next(user_id)
            if handed is not None:
                yield handed
                return
        making = under_way[0] if under_way else self._start_from_bank(user_id)
        yield from self._watch(making)

    def ask(self, user_id: int, text: str) -> Iterator[ComparisonView]:
        """A comparison for the user's own prompt, streaming in; the last view is complete.

        The comparison that was open stays open and comes back afterwards.

        Raises:
            InvalidInput: empty or too long. Unavailable: the model failed.
        """
        yield from self._ask(user_id, text, (), None)

    def follow_up(self, user_id: int, choice_id: int, text: str) -> Iterator[ComparisonView]:
        """The same for a further turn: the response that choice preferred goes on.

        Raises:
            NotFound: no such choice of this user. Conflict: its verdict does not stand any more.
            InvalidInput: it preferred none; or as `ask`.
        """
        with self._database.read() as session:
            choice = self._standing_verdict(session, user_id, choice_id)
            comparison = queries.comparison_of(session, user_id, choice.comparison_id)
            assert comparison is not None  # choices have their user's comparison
            said = {response.side.lower(): response.text for response in comparison.responses}
            if choice.verdict not in said:
                raise InvalidInput(_NO_RESPONSE_CHOSEN)
            preferred = Message(role="assistant", content=said[choice.verdict])
            earlier = (*prompts.messages_of(comparison.prompt), preferred)
        yield from self._ask(user_id, text, earlier, comparison.id)

    def stop(self, user_id: int, making_key: int) -> None:
        """End the writing of this comparison; its texts stay as far as they are written.

        Raises:
            NotFound: no such comparison of this user. InvalidInput: too little is there yet.
        """
        self._judgeable(user_id, making_key).stop()

    def choose_early(
        self, user_id: int, making_key: int, verdict: str, strength: int | None = None
    ) -> int:
        """Record a choice on a comparison that is still being written; returns its id.

        The writing ends here: what is learnt from is what there was to choose by.

        Raises:
            NotFound: no such comparison of this user. Unavailable: the model failed.
            InvalidInput: too little is there yet; or as `choose`. Conflict: answered already.
        """
        check_answer(verdict, strength)
        making = self._judgeable(user_id, making_key)
        making.judged = True
        making.stop()
        comparison_id = making.comparison_id(_GENERATION_TIMEOUT_S)
        with self._database.write() as session:
            comparison = queries.comparison_of(session, user_id, comparison_id)
            assert comparison is not None  # it was stored a moment ago
            comparison.shown_at = making.seen_at or comparison.shown_at or self._clock()
        choice_id = self.choose(user_id, comparison_id, verdict, strength)
        self._pair_taken(user_id)
        return choice_id

    def write_again(self, user_id: int, comparison_id: int, side: str) -> ComparisonView:
        """Have an empty response of an open pair written once more.

        Raises:
            NotFound: no such pair of this user. InvalidInput: that side is not empty.
            Conflict: it was answered, or the model has changed. Unavailable: the model failed.
        """
        with self._database.read() as session:
            comparison, response = self._empty(session, user_id, comparison_id, side)
            prompt = _prompt_text(comparison.prompt)
        made, seed = self._maker.write_again(user_id, prompt, response)
        with self._database.write() as session:
            comparison, response = self._empty(session, user_id, comparison_id, side)
            response.text, response.token_ids = made.text, list(made.token_ids)
            response.ended, response.seconds, response.seed = made.ended, made.seconds, seed
            # The empty text's: it was read for a choice that has been taken back since.
            response.reference_logp_nats = response.reference_identity = None
            response.attempts += 1
            response.drafts = 1
            return view_of(comparison)

    def _empty(
        self, session: Session, user_id: int, comparison_id: int, side: str
    ) -> tuple[Comparison, Response]:
        """A pair that waits for this user's choice, and its response that is empty."""
        comparison = queries.comparison_of(session, user_id, comparison_id)
        if comparison is None or comparison.shown_at is None:
            raise NotFound(_GONE)
        standing = queries.effective_choice(session, comparison_id)
        if standing is not None and standing.verdict != "withdrawn":
            raise Conflict(_GONE)
        for response in comparison.responses:
            if response.side == side and not response.text.strip():
                return comparison, response
        raise InvalidInput(_NOT_EMPTY)

    def _judgeable(self, user_id: int, making_key: int) -> Making:
        making = self._maker.find(user_id, making_key)
        if making is None:
            raise NotFound(_GONE)
        if not enough_to_judge(*making.latest):
            raise InvalidInput(_TOO_EARLY)
        return making

    def _ask(
        self, user_id: int, text: str, earlier: tuple[Message, ...], continues_id: int | None
    ) -> Iterator[ComparisonView]:
        checked = prompts.checked_own_text(text, self._max_prompt_chars)
        with self._database.write() as session:
            prompt = Prompt(
                text=checked,
                topic=prompts.OWN_TOPIC,
                owner_id=user_id,
                earlier=list(earlier) or None,
                created_at=self._clock(),
            )
            session.add(prompt)
            session.flush()
            own = _prompt_text(prompt, continues_id)
        try:
            making = self._maker.start(user_id, own, self._priority, shown=True)
        except (ValueError, Unavailable) as error:
            # Nothing was asked: it has no place among what the user gave.
            with self._database.write() as session:
                session.delete(session.get_one(Prompt, own.prompt_id))
            if isinstance(error, ValueError):
                raise InvalidInput(_TOO_LONG) from error
            raise
        yield from self._watch(making)

    def _show_next(self, user_id: int) -> ComparisonView | None:
        with self._database.write() as session:
            comparison = queries.next_prefetched(session, user_id)
            if comparison is None:
                return None
            comparison.shown_at = self._clock()
            view = view_of(comparison)
        self._pair_taken(user_id)
        return view

    def _start_from_bank(self, user_id: int) -> Making:
        prompt = bank_prompt(self._database, self._maker, user_id, self._rng)
        try:
            return self._maker.start(user_id, prompt, self._priority, shown=True)
        except ValueError as error:
            with self._database.read() as session:
                if not session.get_one(User, user_id).profile:
                    raise
            raise InvalidInput(_LONG_PROFILE) from error  # few characters may be many tokens

    def _watch(self, making: Making) -> Iterator[ComparisonView]:
        """Views of a comparison being made, then the stored one, unless it was judged before."""
        making.seen_at = making.seen_at or self._clock()
        usual_s = self._maker.usual_seconds()
        yield view_of_making(making, 0.0, usual_s)
        for _texts in making.texts():
            if making.judged:
                return
            seconds = (self._clock() - making.seen_at).total_seconds()
            yield view_of_making(making, seconds, usual_s)
        comparison_id = making.comparison_id(_GENERATION_TIMEOUT_S)
        if making.judged:
            return
        with self._database.write() as session:
            comparison = queries.comparison_of(session, making.user_id, comparison_id)
            assert comparison is not None  # it was stored a moment ago
            if comparison.shown_at is None:
                comparison.shown_at = self._clock()
            view = view_of(comparison)
        self._pair_taken(making.user_id)
        yield view


def bank_prompt(database: Database, maker: Maker, user_id: int, rng: random.Random) -> PromptText:
    """A prompt from the bank that this user has not had and is not getting right now.

    Raises:
        Unavailable: the bank is empty.
    """
    taken = maker.prompts_under_way(user_id)
    with database.read() as session:
        prompt = session.get_one(Prompt, prompts.next_prompt_id(session, user_id, taken, rng))
        return _prompt_text(prompt)


def _prompt_text(prompt: Prompt, continues_id: int | None = None) -> PromptText:
    return PromptText(
        prompt.id,
        prompt.text,
        prompt.topic,
        prompt.owner_id is not None,
        earlier=prompts.messages_of(prompt)[:-1],
        continues_id=continues_id,
    )
