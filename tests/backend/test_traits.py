"""What is read off a text: each trait by hand, their units, and what each style does to them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from backend import traits
from backend.styles import load_styles
from backend.traits import COUNT, NAMES, TOLD, measured, table, traits_of, traits_of_styles

ROOT = math.sqrt
BY_HAND = [
    ("length", "One two, three.", math.log(4)),
    ("length", "3 + 4 = 7", 0.0),  # numbers are no words
    ("word length", "I don’t go", (1 + 5 + 2) / 3),
    ("sentence length", "One two. Three four!", math.log(1 + 2)),
    ("sentence length", "One two three", math.log(1 + 3)),  # no end is one sentence
    ("sentence length", "Version 2.5 is out... Well?", math.log(1 + 4 / 2)),
    ("list lines", "Do:\n- this\n  * that\n2) more\n3. last\n1984. A year\n-no", math.log(5)),
    ("first person", "I know we’ve our own", ROOT(3 / 5)),
    ("second person", "You're yours, not theirs", ROOT(2 / 4)),
    ("third person", "They took it from her", ROOT(3 / 5)),
    ("exclamations", "Yes! No!! Why?", math.log(4)),
    ("questions", "Yes! No!! Why? How?", math.log(3)),
    ("commas", "One, two, three", ROOT(2 / 3)),
    ("digits", "In 1984 and 7", ROOT(5 / 2)),
    ("variety", "go go go stop", 2 / 4**0.8),
    ("brackets and colons", "Say (he: “no”); go", ROOT(6 / 4)),
    ("function words", "The cat is not here", ROOT(3 / 5)),
    ("hedges", "Perhaps it often rains", ROOT(2 / 4)),
    ("connectives", "First because, then however", ROOT(4 / 4)),
    ("paragraphs", "One.\n\nTwo.\n\nThree.\nFour.", math.log(3)),
    ("capitals", "Anna met Ben in Graz today", ROOT(3 / 6)),
]


def of(text: str) -> dict[str, float]:
    return dict(zip(NAMES, measured(text).tolist(), strict=True))


@pytest.mark.parametrize(("name", "text", "expected"), BY_HAND)
def test_a_trait_by_hand(name: str, text: str, expected: float) -> None:
    assert of(text)[name] == pytest.approx(expected)


def test_every_trait_that_has_a_name_has_been_read_by_hand() -> None:
    assert {name for name, _, _ in BY_HAND} == set(TOLD)
    assert NAMES[: len(TOLD)] == TOLD
    assert len(NAMES) == len(set(NAMES)) == COUNT


def test_what_a_text_does_not_have_is_nothing() -> None:
    assert {name: value for name, value in of("").items() if value} == {
        "sentence length": math.log(2)  # of one word: a text is never divided by nothing
    }
    assert np.array_equal(measured(" \n\n "), measured("") + _only("paragraphs", math.log(2)))
    for text in ("", "...", "?!\n\n", "…", "🙂 " * 40, "𝔘𝔫𝔦 ٣٤", "\x00"):
        assert np.isfinite(traits_of(text)).all()


def _only(name: str, value: float) -> np.ndarray:
    return np.array([value if one == name else 0.0 for one in NAMES])


def test_words_in_other_scripts_are_words_and_apostrophes_are_alike() -> None:
    assert of("Небо голубое сегодня")["length"] == pytest.approx(math.log(4))
    assert np.array_equal(measured("You’re here"), measured("You're here"))
    assert of("YOU ARE")["second person"] == of("you are")["second person"]


def test_traits_are_centred_in_units_and_cut_off() -> None:
    text = "Rain falls because warm air rises and cools, and the water in it gathers."
    known = table()
    raw = (measured(text) - known.centre) / known.unit
    assert np.abs(raw).max() > 3, "else nothing is cut off here"
    assert np.array_equal(traits_of(text), np.clip(raw, -3, 3))
    assert np.abs(traits_of("!" * 500)).max() == 3
    assert traits_of("word " * 5000)[NAMES.index("length")] == 3


def test_the_shipped_table_has_every_trait_of_every_style() -> None:
    known = table()
    assert known.centre.shape == known.unit.shape == (COUNT,)
    assert (known.unit > 0).all()
    assert set(known.styles) == {style.name for style in load_styles()}
    for means in known.styles.values():
        assert means.shape == (COUNT,)
        assert np.abs(means).max() <= 3
    assert known is table(), "read once"


def test_a_style_does_what_its_wish_asks_for() -> None:
    def has(style: str, trait: str) -> float:
        return float(traits_of_styles([style])[0, NAMES.index(trait)])

    assert has("brief", "length") < has("as it comes", "length") - 0.5 < has("full", "length") - 1
    assert has("list", "list lines") > 1 > has("full", "list lines")
    assert has("plain words", "word length") < -0.3 < 0.3 < has("expert words", "word length")
    assert has("warm", "second person") > 0.5 > has("sober", "second person")
    assert has("from experience", "first person") > 1
    assert has("asking back", "questions") > 0.5 > has("brief", "questions")
    # What is asked with no wish is the middle of everything, but that rare words are cut off.
    assert np.abs(traits_of_styles(["as it comes"])).max() < 0.25


def test_styles_come_in_order_and_one_that_is_gone_has_no_traits() -> None:
    both = traits_of_styles(["list", "with examples"])
    assert np.array_equal(both[0], table().styles["list"])
    assert not both[1].any()
    assert both.shape[1] == traits.COUNT
