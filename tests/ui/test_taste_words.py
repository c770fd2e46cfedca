"""The sentences about one's own figures say no more than the figures carry."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from backend.confidence import Tally
from backend.evidence import Blind, Figure
from backend.insights import Consistency
from backend.taste import Taste, curve
from ui import taste_words
from ui.language import english

ENGLISH = english()
NONE = Tally(0, 0, 0)
NO_PAIRS = Blind()


def taste(
    personal: Tally = NONE,
    *,
    wrong: Tally = NONE,
    apart: Tally = NONE,
    blind: Blind = NO_PAIRS,
    before: int = 0,
) -> Taste:
    margins = [(1.0, -1.0)] * personal.wins + [(-1.0, 1.0)] * personal.losses
    return Taste(
        personal=Figure(personal),
        generic=Figure(Tally(personal.losses, personal.halves, personal.wins)),
        wrong=Figure(wrong),
        apart=Figure(apart),
        blind=blind,
        before=before,
        curve=curve(margins),
    )


def plain(lines: tuple[str, ...]) -> str:
    return " ".join(lines).replace("\N{NO-BREAK SPACE}", " ")


def test_few_choices_make_no_share() -> None:
    assert taste_words.known_figure(taste(), ENGLISH) == "–"
    assert "Nothing to say yet" in plain(taste_words.known_lines(taste(), ENGLISH))
    assert "One of your choices" in plain(taste_words.known_lines(taste(Tally(1, 0, 0)), ENGLISH))
    nine = taste(Tally(9, 0, 0))
    assert taste_words.known_figure(nine, ENGLISH) == "–"
    assert "9 of your choices are scored so far" in plain(taste_words.known_lines(nine, ENGLISH))
    assert "%" not in plain(taste_words.known_lines(nine, ENGLISH))
    assert "<svg" not in taste_words.curve_svg(nine, ENGLISH)


def test_a_share_comes_with_its_count_its_range_and_its_controls() -> None:
    some = taste(Tally(15, 0, 5), wrong=Tally(5, 0, 6), apart=Tally(8, 0, 5))
    assert taste_words.known_figure(some, ENGLISH) == "75%"
    told = plain(taste_words.known_lines(some, ENGLISH))
    ends = some.personal.interval
    assert f"20 choices · likely between {100 * ends.low:.0f}% and {100 * ends.high:.0f}%" in told
    assert "without your taste: 25%" in told
    assert "Someone else’s taste foresaw 45% of 11" in told
    assert "that could be chance" in told


@pytest.mark.parametrize(
    ("apart", "words"),
    [
        (Tally(0, 0, 0), "has not expected different things"),
        (Tally(9, 0, 0), "Too few to be sure"),
        (Tally(40, 0, 2), "your taste was right more often"),
        (Tally(2, 0, 40), "your taste was right less often"),
        (Tally(20, 0, 20), "could be chance"),
    ],
)
def test_yours_is_better_only_where_its_range_is_above_one_half(apart: Tally, words: str) -> None:
    told = plain(taste_words.known_lines(taste(Tally(30, 0, 20), apart=apart), ENGLISH))
    assert words in told


def test_nothing_stands_apart_from_a_model_that_leans_to_neither() -> None:
    of_styled = replace(taste(Tally(30, 0, 20)), generic=Figure(Tally(0, 50, 0)))
    told = plain(taste_words.known_lines(of_styled, ENGLISH))
    assert "leans to neither" in told
    assert "expected different things" not in told


@pytest.mark.parametrize(
    ("blind", "words"),
    [
        (Blind(), "You have judged no such pair yet"),
        (Blind(won=9, lost=2, tie=1), "Too few to be sure yet: between"),
        (Blind(won=30, lost=30), "No difference can be told so far"),
        (Blind(won=60, lost=4), "More often yours than everybody’s"),
        (Blind(won=4, lost=60), "More often everybody’s than yours"),
    ],
)
def test_the_blind_test_in_plain_words(blind: Blind, words: str) -> None:
    assert words in plain(taste_words.blind_lines(taste(blind=blind), ENGLISH))


def test_what_was_made_before_it_had_learnt_is_set_apart() -> None:
    told = plain(taste_words.blind_lines(taste(before=3), ENGLISH))
    assert "3 more were made before" in told
    assert taste_words.blind_figure(taste(before=3), ENGLISH) == "–"
    assert taste_words.blind_figure(taste(blind=Blind(won=9, lost=2, tie=1)), ENGLISH) == "9 of 12"


def test_the_curve_is_a_drawing_with_a_name_inside_its_frame() -> None:
    drawing = taste_words.curve_svg(taste(Tally(300, 0, 100)), ENGLISH)
    assert 'role="img"' in drawing
    assert "to number 400" in drawing
    band = re.search(r'class="band" d="M([^"]+)Z"', drawing)
    assert band is not None
    points = [tuple(map(float, point.split())) for point in band[1].split("L")]
    xs = [x for x, _ in points]
    assert xs == [*sorted(xs[: len(xs) // 2]), *sorted(xs[: len(xs) // 2], reverse=True)]
    assert all(44 <= x <= 550 and 18 <= y <= 158 for x, y in points)


def test_steadiness_says_no_more_than_its_count_carries() -> None:
    def told(same: int, other: int, side: int = 0) -> str:
        repeats = Consistency(Figure(Tally(same, 0, other)), side)
        return plain(taste_words.steady_lines(repeats, ENGLISH))

    assert told(0, 0) == ""
    assert told(1, 0).startswith("One earlier pair came back")
    assert "%" not in told(5, 4, 4)
    assert "you chose the same in 5. Too few to say" in told(5, 4, 4)
    assert "12 earlier pairs" in told(9, 3)
    assert "in 75% of them, likely between" in told(9, 3)
    assert "otherwise" not in told(9, 3)
    assert told(9, 3, 2).endswith(
        "3 times you chose otherwise, and 2 of them went to the same side as before."
    )
