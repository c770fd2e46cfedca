"""A comparison being made: what it is made of, its texts as they grow, which drafts are taken.

Until its responses are complete it lives here alone (`backend/making.py` starts and stores it).
Knows no database.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime

from backend.drafts import Draft, best_of
from backend.engines.base import EngineClosed, EngineFailed, Generated, Generation
from backend.errors import Unavailable
from backend.plans import Plan
from backend.taste_model import TasteModel
from backend.wording import msg
from trainer.types import Message

_KEY_BITS = 48  # travels through the browser, whose numbers are exact up to 53 bits


@dataclass(frozen=True, slots=True)
class PromptText:
    """The prompt a comparison is made for.

    Attributes:
        own: the user's own words.
        earlier: the turns before it; `continues_id` is the comparison they come from.
    """

    prompt_id: int
    text: str
    topic: str
    own: bool
    earlier: tuple[Message, ...] = ()
    continues_id: int | None = None

    @property
    def messages(self) -> tuple[Message, ...]:
        """The whole conversation, ready for a response to follow."""
        return (*self.earlier, Message(role="user", content=self.text))


@dataclass(frozen=True, slots=True)
class Written:
    """One side as it is stored: the draft it is, and of how many."""

    made: Generated
    draft: Draft
    drafts: int


class Making:
    """One comparison on its way to the database.

    Where a side has several drafts, nobody sees them grow: its text is there once one is chosen.

    Attributes:
        key: names it while it has no id yet; drawn at random, so that none is reused after a
            restart.
        latest: the texts somebody has seen so far.
        seen_at: since when somebody watches.
        stopped: the user ended the writing.
        judged: the user chose before the end; whoever watches shall show it no more.
    """

    stored: Future[int]  # the comparison's id, once it is in the database

    def __init__(
        self,
        user_id: int,
        prompt: PromptText,
        plan: Plan,
        generation: Generation,
        *,
        sides: tuple[tuple[Draft, ...], tuple[Draft, ...]],
        taste: TasteModel,
        shown: bool,
        profile: str,
    ) -> None:
        self.user_id = user_id
        self.key = secrets.randbits(_KEY_BITS)
        self.prompt = prompt
        self.plan = plan
        self.profile = profile  # the user's, as it stands in the personal prompts
        self.generation = generation
        self._sides = sides
        self._taste = taste
        self.shown = shown
        self.latest = ("", "")
        self.seen_at: datetime | None = None
        self.stopped = False
        self.judged = False

    def texts(self) -> Iterator[tuple[str, str]]:
        """Texts of sides A and B as they grow.

        Raises:
            Unavailable: the model failed or was stopped.
        """
        try:
            if all(len(drafts) == 1 for drafts in self._sides):
                for texts in self.generation.stream():
                    self.latest = texts[0], texts[1]
                    yield self.latest
            else:
                a, b = self.chosen(self.generation.result())
                self.latest = a.made.text, b.made.text
                yield self.latest
        except (EngineFailed, EngineClosed) as error:
            raise unavailable() from error

    def chosen(self, made: Sequence[Generated]) -> tuple[Written, Written]:
        """The best draft of each side, from all that was made, side A's drafts first."""
        best = []
        for drafts in self._sides:
            mine, made = made[: len(drafts)], made[len(drafts) :]
            nth = best_of([one.text for one in mine], self._taste, self.prompt.text)
            best.append(Written(mine[nth], drafts[nth], len(drafts)))
        a, b = best
        return a, b

    def stop(self) -> None:
        """End the writing; the texts stay as far as they were written."""
        self.stopped = True
        self.generation.cancel()

    def comparison_id(self, timeout_s: float) -> int:
        """Wait until it is stored.

        Raises:
            Unavailable: the model failed, or it took too long.
            sqlalchemy.exc.SQLAlchemyError: it could not be stored.
        """
        try:
            return self.stored.result(timeout_s)
        except (EngineFailed, EngineClosed, TimeoutError) as error:
            raise unavailable() from error


def unavailable() -> Unavailable:
    """What people read where the model failed."""
    return Unavailable(msg("The model could not answer just now. Please try again."))
