"""Pairs that differ in what people care about: each response is made under another wish for style.

Two samples of one small model differ little, so that a choice between them says little. Here each
side is asked with a wish of its own behind the prompt (in one sentence, as a list, warmly, …); the
wish stands there only while the response is made and is no part of what is learnt. Side by side
two styles are drawn: one that this user's choices speak for (Thompson sampling, Beta posteriors),
one at random, so that what is liked comes up often and everything keeps coming up.

Pure but for the random generator handed in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from trainer.types import Message


@dataclass(frozen=True, slots=True)
class Style:
    """One way to answer.

    Attributes:
        name: kept with the response.
        wish: a sentence put behind the prompt; empty for none.
    """

    name: str
    wish: str


@dataclass(frozen=True, slots=True)
class Record:
    """How often one user preferred a style to another, and another to it."""

    won: int = 0
    lost: int = 0


def load_styles() -> tuple[Style, ...]:
    """The styles that come with Attune, the one without a wish among them."""
    text = files("backend").joinpath("data/styles.json").read_text("utf-8")
    return tuple(Style(name, wish) for name, wish in json.loads(text).items())


def draw_styles(
    styles: Sequence[Style], records: Mapping[str, Record], rng: random.Random
) -> tuple[Style, Style]:
    """Two different styles, the likely favourite first.

    Args:
        styles: at least two.
        records: by style name; a style without one has not been judged.
    """

    def chance(style: Style) -> float:
        record = records.get(style.name, Record())
        return rng.betavariate(1 + record.won, 1 + record.lost)

    favourite = max(styles, key=chance)
    return favourite, rng.choice([style for style in styles if style is not favourite])


def in_style(messages: Sequence[Message], style: Style | None) -> tuple[Message, ...]:
    """The prompt's messages with the style's wish behind the last one, which is the user's."""
    if style is None or not style.wish:
        return tuple(messages)
    last = messages[-1]
    asked = Message(role=last["role"], content=f"{last['content']} {style.wish}")
    return (*messages[:-1], asked)
