"""A comparison as a page may know it: texts by side, never their conditions."""

from __future__ import annotations

from dataclasses import dataclass

from backend.prompts import messages_of
from backend.under_way import Making
from db.models import Comparison
from trainer.types import Message

__all__ = [
    "EMPTY_VIEW",
    "ComparisonView",
    "Message",
    "Progress",
    "enough_to_judge",
    "view_of",
    "view_of_making",
]

_JUDGEABLE_CHARS = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the writing is: seconds so far, and what it has usually taken lately if known."""

    seconds: float
    usual_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonView:
    """What the page shows.

    Attributes:
        comparison_id: None while it is still being made; `making_key` names it until then.
        own: the prompt is the user's own.
        earlier: the turns before the prompt.
        complete: both texts are final.
        progress: of a comparison being made.
    """

    comparison_id: int | None
    topic: str
    prompt: str
    own: bool
    text_a: str
    text_b: str
    complete: bool
    earlier: tuple[Message, ...] = ()
    making_key: int | None = None
    progress: Progress | None = None

    @property
    def judgeable(self) -> bool:
        """Both texts are final, or enough of each is there to choose by."""
        return self.complete or enough_to_judge(self.text_a, self.text_b)


EMPTY_VIEW = ComparisonView(
    comparison_id=None, topic="", prompt="", own=False, text_a="", text_b="", complete=False
)


def enough_to_judge(text_a: str, text_b: str) -> bool:
    """Whether a choice may be made while both are still being written."""
    return min(len(text_a), len(text_b)) >= _JUDGEABLE_CHARS


def view_of(comparison: Comparison) -> ComparisonView:
    """A stored comparison, prompt and responses loaded."""
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
        earlier=messages_of(prompt)[:-1],
    )


def view_of_making(making: Making, seconds: float, usual_s: float | None) -> ComparisonView:
    """A comparison being made, as far as it is written."""
    text_a, text_b = making.latest
    prompt = making.prompt
    return ComparisonView(
        comparison_id=None,
        topic=prompt.topic,
        prompt=prompt.text,
        own=prompt.own,
        text_a=text_a,
        text_b=text_b,
        complete=False,
        earlier=prompt.earlier,
        making_key=making.key,
        progress=Progress(seconds, usual_s),
    )
