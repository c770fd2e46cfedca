"""The echo engine's answers: plausible sentences fixed by prompt, seed, condition and version.

Pure; knows nothing of threads and files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from backend.engines.base import Condition, Generated, GenerationRequest, Message

_END_ID = 0
_OPENINGS = (
    "Here is {manner} way to look at “{topic}”.",
    "When people ask about “{topic}”, {manner} answer is that it depends.",
    "For “{topic}”, {manner} first step is to keep it simple.",
    "There is {manner} side to “{topic}” that is easy to miss.",
)
_MANNERS = (
    "a plain",
    "an unusual",
    "a careful",
    "a cheerful",
    "a thorough",
    "a quick",
    "a gentle",
    "a practical",
    "a playful",
    "an old-fashioned",
)
_MIDDLES = (
    "Start small, and give it a few days before you judge it.",
    "Most of the work is in the first step, so make that one easy.",
    "Write down what you notice; patterns show up sooner than you think.",
    "It helps to ask somebody who has done it before.",
    "Try two versions side by side and keep the one you like better.",
    "Leave out anything that does not earn its place.",
    "Take a break when it stops being fun, and come back with fresh eyes.",
    "A little planning saves a lot of time later on.",
)
_CLOSINGS = (
    "If you tell me more, I can be more specific.",
    "That is usually enough to get going.",
    "And if it does not work out, you will still have learnt something.",
    "Enjoy it!",
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A version's content: `flavour` changes every answer, `users` have answers of their own."""

    flavour: int
    users: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole answer within the request's length limit, before anybody cancels it."""

    words: tuple[str, ...]
    ends: bool

    def cut(self, count: int, version_id: int, seconds: float) -> Generated:
        """What is left when only `count` words were shown."""
        words = self.words[:count]
        ended = self.ends and count >= len(self.words)
        ids = tuple(1 + _digest(word) % 30_000 for word in words)
        return Generated(
            text=" ".join(words),
            token_ids=(*ids, _END_ID) if ended else ids,
            ended=ended,
            version_id=version_id,
            seconds=seconds,
        )


def answer(request: GenerationRequest, recipe: Recipe) -> Answer:
    """What an engine serving `recipe` answers to `request`."""
    sampling = request.sampling
    seed = sampling.seed if sampling.temperature > 0 else None
    key = (prompt_text(request.messages), *whose(request.condition, request.user_id, recipe))
    if request.style is not None:
        if request.condition is Condition.BASE:
            raise ValueError("the base model has no styles")
        key = (*key, f"style {request.style}")
    random = random_of(*key, seed)
    topic = " ".join(request.messages[-1]["content"].split()[:6]).rstrip("?.!,")
    sentences = [
        random.choice(_OPENINGS).format(topic=topic, manner=random.choice(_MANNERS)),
        *random.sample(_MIDDLES, random.randint(1, 4)),
        random.choice(_CLOSINGS),
    ]
    words = tuple(" ".join(sentences).split())
    limit = sampling.max_new_tokens
    return Answer(words[:limit], ends=len(words) < limit)


def whose(condition: Condition, user_id: int | None, recipe: Recipe) -> tuple[object, ...]:
    """What the answer depends on besides prompt and seed; an unknown user is the generic one."""
    if condition is Condition.BASE:
        return ("base",)
    if condition is Condition.PERSONAL:
        if user_id is None:
            raise ValueError("a personal response needs a user")
        if user_id in recipe.users:
            return (recipe.flavour, user_id)
    return (recipe.flavour, "generic")


def prompt_text(messages: Sequence[Message]) -> str:
    """All turns, the last one first.

    Raises:
        ValueError: there is no message, or the last one is not the user's.
    """
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("a prompt ends with a message of the user")
    return "\n".join(message["content"] for message in reversed(messages))


def _digest(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8])


def random_of(*parts: object) -> Random:
    """Random numbers fixed by `parts`, in every process."""
    return Random(_digest(*parts))  # noqa: S311
