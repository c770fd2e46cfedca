"""Pairs that differ in what people care about: each response is made in another style.

Two samples of one small model differ little, so that a choice between them says little. Here each
side has a style of its own (in one sentence, as a list, warmly, …). With the styled user model that
is the vector it is made with, e₀ + the style's direction; with the others it is asked with a wish
behind the prompt, which stands there only while the response is made and is no part of what is
learnt. Both styles of a pair are drawn by what this user's taste model says of the traits that
styles have (Thompson sampling): what is liked meets what may be liked as well, and what is not
known yet keeps coming up.

Pure but for the random generator handed in.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np

from backend.taste_model import TasteModel
from backend.traits import traits_of_styles
from trainer.types import Message

_DRAWS = 1024
_SHARPNESS = 3
_REACH = 1.2  # whole styles, of a user whose favourite is certain


@dataclass(frozen=True, slots=True)
class Style:
    """One way to answer.

    Attributes:
        name: kept with the response.
        wish: a sentence put behind the prompt; empty for none.
    """

    name: str
    wish: str


def load_styles() -> tuple[Style, ...]:
    """The styles that come with Attune, the one without a wish among them."""
    text = files("backend").joinpath("data/styles.json").read_text("utf-8")
    return tuple(Style(name, wish) for name, wish in json.loads(text).items())


def with_directions(styles: Sequence[Style]) -> tuple[Style, ...]:
    """The styles that have a direction, in the order of the directions: all that have a wish."""
    return tuple(style for style in styles if style.wish)


def draw_styles(
    styles: Sequence[Style], taste: TasteModel, rng: random.Random
) -> tuple[Style, Style]:
    """Two different styles: one that may be the favourite, then one of the others that may be.

    Each is the best under weights drawn from what is known of the user's taste (Thompson
    sampling): two uncertain styles meet often, one that is surely disliked seldom. A second one at
    random finds a favourite later, as half of its pairs ask what is known already.

    Args:
        styles: at least two.
    """
    means = traits_of_styles([style.name for style in styles])
    first, second = (means @ weights for weights in taste.draws(2, rng))
    favourite = int(first.argmax())
    second[favourite] = -np.inf
    return styles[favourite], styles[int(second.argmax())]


def style_shares(styles: Sequence[Style], taste: TasteModel) -> tuple[float, ...]:
    """How much of each style with a wish a user's vector has; 0 of all for a stranger.

    a = 1.2 · (Q − 1/S)₊ / (1 − 1/S) with Q = P³ / ΣP³, P being the chance that a style suits
    best: 1.2 of one that certainly does. The power brings the likeliest favourite forward: half of
    two styles is neither of them. The same taste gives the same shares.
    """
    wished = with_directions(styles)
    if not taste.choices:
        return (0.0,) * len(wished)
    means = traits_of_styles([style.name for style in styles])
    drawn = taste.draws(_DRAWS, random.Random(taste.choices))  # noqa: S311 - no secret
    best = (drawn @ means.T).argmax(axis=1)
    sharp = (np.bincount(best, minlength=len(styles)) / _DRAWS) ** _SHARPNESS
    even = 1 / len(styles)
    excess = np.clip(sharp / sharp.sum() - even, 0, None) / (1 - even)
    of_style = dict(zip((style.name for style in styles), excess.tolist(), strict=True))
    return tuple(_REACH * of_style[style.name] for style in wished)


def in_style(messages: Sequence[Message], style: Style | None) -> tuple[Message, ...]:
    """The prompt's messages with the style's wish behind the last one, which is the user's."""
    if style is None or not style.wish:
        return tuple(messages)
    last = messages[-1]
    asked = Message(role=last["role"], content=f"{last['content']} {style.wish}")
    return (*messages[:-1], asked)
