"""Plain counts of words: by hand, and that they carry a taste which no trait names."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from backend.taste_model import taste_from
from backend.traits import TOLD, Reading, traits_of
from backend.word_counts import WORD_COUNTS

BY_HAND = [
    ("1 to 2 letters", "We go home", 2 / 3),
    ("3 to 4 letters", "We go home", 1 / 3),
    ("5 to 6 letters", "Water, stones; air", 2 / 3),
    ("7 to 8 letters", "thunder, daylight and rain", 2 / 4),
    ("9 to 10 letters", "telescope atmosphere", 2 / 2),
    ("11 to 99 letters", "mathematical rain", 1 / 2),
    ("ends in ing", "Walking: a thing", 1 / 3),  # of "thing" too little would be left
    ("ends in ly", "Slowly, only fly", 1 / 3),
    ("ends in tion", "Evaporation is an action", 1 / 4),
    ("says the", "The sky over the sea", 2 / 5),
    ("says it's", "It’s so", 1 / 2),
    ("says you", "YOU do", 1 / 2),
]


@pytest.mark.parametrize(("name", "text", "share"), BY_HAND)
def test_a_count_by_hand(name: str, text: str, share: float) -> None:
    assert WORD_COUNTS[name](Reading(text).counts) == pytest.approx(share**0.5)


def test_every_word_has_one_length_and_no_words_are_nothing() -> None:
    lengths = [count for name, count in WORD_COUNTS.items() if name.endswith("letters")]
    words = Reading("Why a rainbow appears opposite the sun: refraction, then reflection.").counts
    assert sum(count(words) ** 2 for count in lengths) == pytest.approx(1)
    assert not any(count(Counter()) for count in WORD_COUNTS.values())


WORDS = (
    "stone",
    "river",
    "walking",
    "cloud",
    "quietly",
    "reading",
    "tower",
    "singing",
    "window",
    "bright",
)


def _likes_verbs_in_ing(count: int, seed: int) -> list[tuple[str, str]]:
    """Choices between texts of the same number of words, whichever has more of walking, reading."""
    rng = random.Random(seed)

    def taste(text: str) -> int:
        return sum(word in ("walking", "reading", "singing") for word in text.split())

    found: list[tuple[str, str]] = []
    while len(found) < count:
        one, other = (" ".join(rng.choices(WORDS, k=20)) for _ in range(2))
        if taste(one) != taste(other):
            found.append((one, other) if taste(one) > taste(other) else (other, one))
    return found


def test_a_taste_that_no_trait_names_is_foreseen_from_word_counts() -> None:
    choices, later = _likes_verbs_in_ing(40, seed=1), _likes_verbs_in_ing(200, seed=2)

    def foreseen(traits: int) -> float:
        weights = taste_from(choices, traits=traits).weights
        differences = np.stack([traits_of(a) - traits_of(b) for a, b in later])[:, :traits]
        return float((differences @ weights > 0).mean())

    named = foreseen(len(TOLD))
    assert foreseen(len(traits_of(""))) > max(0.8, named + 0.1), named
