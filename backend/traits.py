"""What can be read off a text without a model: length, words, sentences, address, layout.

Numbers of the kind that stylometry counts, the same for everybody and for every base model: a dozen
and a half that have a name, so that people can be told of them, and plain counts of words besides
(`backend/word_counts.py`). A user's choices say which of them that user cares about
(`backend/taste_model.py`). Each is made comparable: centred on what a base model's responses have,
in units of how far two responses to one prompt lie apart, cut off at three units. Constants and
what each style does to each trait are in `data/traits.json`, which
`python -m benchmarks.style_traits` makes.

Pure. Knows nothing of users, choices and models.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from backend.word_counts import WORD_COUNTS, root_share

Vector = NDArray[np.float64]

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_LIST_LINE = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)])\s+\S", re.MULTILINE)
FARTHEST = 3.0  # units; beyond, one odd text would say more than ten others


def word_set(words: str) -> frozenset[str]:
    """Words that stand in one text."""
    return frozenset(words.split())


_FIRST_PERSON = word_set("i i'm i've i'll i'd me my mine myself we we're we've our ours us")
_SECOND_PERSON = word_set("you you're you've you'll you'd your yours yourself")
_THIRD_PERSON = word_set("he she it they him her them his hers its their theirs")
_FUNCTION_WORDS = word_set(
    "the a an of to in on at for with from by and or but if so as that this these those is are was "
    "were be been being have has had do does did can could may might will would shall should must "
    "not no"
)
_HEDGES = word_set(
    "may might could perhaps maybe possibly often sometimes usually generally likely"
)
_CONNECTIVES = word_set(
    "because since therefore thus hence however although though while whereas also moreover "
    "furthermore then finally first second next instead"
)


class Reading:
    """One text taken apart once, for all traits."""

    def __init__(self, text: str) -> None:
        found: list[str] = _WORD.findall(text)
        self.text = text
        self.words = [word.lower().replace("’", "'") for word in found]
        self.count = max(1, len(found))
        self.sentences = max(1, len(_SENTENCE_END.findall(text)))
        self.capitals = sum(word[0].isupper() for word in found)
        self.counts = Counter(self.words)

    def share(self, words: frozenset[str]) -> float:
        """Which part of the words these are; its root, so that a few tell from none."""
        return root_share(sum(self.counts[word] for word in words), self.count)

    def marks(self, characters: str) -> float:
        """How often these characters stand, per word; the root likewise."""
        return root_share(sum(self.text.count(mark) for mark in characters), self.count)


_MEASURES: Mapping[str, Callable[[Reading], float]] = {
    "length": lambda r: math.log1p(len(r.words)),
    "word length": lambda r: sum(map(len, r.words)) / r.count,
    "sentence length": lambda r: math.log1p(r.count / r.sentences),
    "list lines": lambda r: math.log1p(len(_LIST_LINE.findall(r.text))),
    "first person": lambda r: r.share(_FIRST_PERSON),
    "second person": lambda r: r.share(_SECOND_PERSON),
    "third person": lambda r: r.share(_THIRD_PERSON),
    "exclamations": lambda r: math.log1p(r.text.count("!")),
    "questions": lambda r: math.log1p(r.text.count("?")),
    "commas": lambda r: r.marks(","),
    "digits": lambda r: r.marks("0123456789"),
    "variety": lambda r: len(set(r.words)) / r.count**0.8,
    "brackets and colons": lambda r: r.marks(':;()"“”'),
    "function words": lambda r: r.share(_FUNCTION_WORDS),
    "hedges": lambda r: r.share(_HEDGES),
    "connectives": lambda r: r.share(_CONNECTIVES),
    "paragraphs": lambda r: math.log1p(r.text.count("\n\n")),
    "capitals": lambda r: root_share(r.capitals, r.count),
}
TOLD = tuple(_MEASURES)  # the traits that people are told of; they come first
NAMES = (*TOLD, *WORD_COUNTS)
COUNT = len(NAMES)


@dataclass(frozen=True, slots=True)
class TraitTable:
    """What makes traits comparable, and what styles do to them.

    Attributes:
        centre, unit: (T,) each, in a trait's own numbers.
        styles: by name, a style's mean traits (T,) in units.
    """

    centre: Vector
    unit: Vector
    styles: Mapping[str, Vector]


@cache
def table() -> TraitTable:
    """The table that comes with Attune."""
    data = json.loads(files("backend").joinpath("data/traits.json").read_text("utf-8"))
    return TraitTable(
        _in_order(data["centre"]),
        _in_order(data["unit"]),
        {style: _in_order(means) for style, means in data["styles"].items()},
    )


def _in_order(by_name: Mapping[str, float]) -> Vector:
    return np.array([by_name[name] for name in NAMES])


def measured(text: str) -> Vector:
    """Every trait in its own numbers, (T,)."""
    reading = Reading(text)
    named = [measure(reading) for measure in _MEASURES.values()]
    return np.array([*named, *(count(reading.counts) for count in WORD_COUNTS.values())])


@lru_cache(maxsize=16384)  # about 2 KB each
def traits_of(text: str) -> Vector:
    """Every trait in units, (T,), each at most three; not to be written to.

    Kept, as every pair and score reads a user's newest texts again.
    """
    known = table()
    traits: Vector = np.clip((measured(text) - known.centre) / known.unit, -FARTHEST, FARTHEST)
    traits.setflags(write=False)
    return traits


def traits_of_styles(styles: Sequence[str]) -> Vector:
    """Mean traits of responses in these styles, (S, T) in units; of an unknown style 0."""
    known = table().styles
    return np.stack([known.get(style, np.zeros(COUNT)) for style in styles])
