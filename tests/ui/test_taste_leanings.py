"""Leanings in words: every trait has a name both ways, and nothing is said that is not clear."""

from __future__ import annotations

import pytest

from backend.leanings import FEWEST, Leaning, Leanings
from backend.traits import TOLD
from ui import taste_leanings
from ui.language import Languages, english

ENGLISH = english()
SHORT = Leaning("length", more=False, strength=3.0, certainty=0.99)
SPOKEN_TO = Leaning("second person", more=True, strength=2.0, certainty=0.95)


def test_every_trait_has_a_name_in_both_directions() -> None:
    assert set(taste_leanings.NAMES) == set(TOLD)
    for language in Languages().offered:
        said = {
            taste_leanings.name_of(Leaning(trait, more, 2.0, 0.99), language)
            for trait in TOLD
            for more in (True, False)
        }
        assert len(said) == 2 * len(TOLD), language.code


def test_leanings_stand_in_their_order_with_what_they_rest_on() -> None:
    leanings = Leanings(23, (SHORT, SPOKEN_TO))
    shown = taste_leanings.chips_html(leanings, ENGLISH)
    items = "<ul><li>short responses</li><li>being spoken to (you, your)</li></ul>"
    assert shown == f"<p>You lean to</p>{items}"
    first, second = taste_leanings.lines(leanings, ENGLISH)
    assert first.startswith("From 23 choices. Each is at least 90% sure")
    assert "not of you as a person" in second


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (0, "Too few to say yet: it takes 10 choices of one response over the other. So far: 0."),
        (FEWEST - 1, "So far: 9."),
        (FEWEST, "Nothing stands out clearly yet in 10 choices."),
    ],
)
def test_where_nothing_is_clear_no_leaning_is_named(choices: int, said: str) -> None:
    nothing = Leanings(choices, ())
    assert taste_leanings.chips_html(nothing, ENGLISH) == ""
    (line,) = taste_leanings.lines(nothing, ENGLISH)
    assert said in line
    assert "%" not in line
