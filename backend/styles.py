"""Pairs that differ in what people care about: each response is made in another style.

Two samples of one small model differ little, so that a choice between them says little. Here each
side has a style of its own (in one sentence, as a list, warmly, …). With the styled user model that
is the vector it is made with, e₀ + the style's direction; with the others it is asked with a wish
behind the prompt, which stands there only while the response is made and is no part of what is
learnt. Both styles of a pair are drawn by what this user's choices speak for (Thompson sampling,
Beta posteriors): what is liked meets what may be liked as well, and what nobody has judged yet
keeps coming up.

Pure but for the random generator handed in.
"""

from __future__ import annotations

import json
import math
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


def with_directions(styles: Sequence[Style]) -> tuple[Style, ...]:
    """The styles that have a direction, in the order of the directions: all that have a wish."""
    return tuple(style for style in styles if style.wish)


def draw_styles(
    styles: Sequence[Style], records: Mapping[str, Record], rng: random.Random
) -> tuple[Style, Style]:
    """Two different styles, the likely favourite first, then the likely favourite of the others.

    Each is the largest of independent draws from Beta(1 + won, 1 + lost): two uncertain styles meet
    often, a style that has lost to everything seldom. A second one at random finds a favourite
    later, as half of its pairs ask what is known already.

    Args:
        styles: at least two.
        records: by style name; a style without one has not been judged, and a record of a style
            that is not among them says nothing.
    """

    def chance(style: Style) -> float:
        record = records.get(style.name, Record())
        return rng.betavariate(1 + record.won, 1 + record.lost)

    favourite = max(styles, key=chance)
    return favourite, max((style for style in styles if style is not favourite), key=chance)


def log_odds(records: Mapping[str, Record], preferred: str, other: str) -> float:
    """How much likelier one style was to be preferred than another, by what is known, nats.

    The difference of the log-odds of both styles' mean chances, Beta(1 + won, 1 + lost): above 0
    the choice was foreseen, 0 where nothing tells the two apart.
    """
    return _log_odds(records, preferred) - _log_odds(records, other)


def _log_odds(records: Mapping[str, Record], style: str) -> float:
    record = records.get(style, Record())
    return math.log((1 + record.won) / (1 + record.lost))


def in_style(messages: Sequence[Message], style: Style | None) -> tuple[Message, ...]:
    """The prompt's messages with the style's wish behind the last one, which is the user's."""
    if style is None or not style.wish:
        return tuple(messages)
    last = messages[-1]
    asked = Message(role=last["role"], content=f"{last['content']} {style.wish}")
    return (*messages[:-1], asked)
