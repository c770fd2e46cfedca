"""Styles: what comes with Attune, who is drawn, what the responses and the draw remember."""

from __future__ import annotations

import random
from collections import Counter

from backend.engines.base import Condition
from backend.plans import Shares, draw_plan
from backend.styles import Record, Style, draw_styles, in_style, load_styles, with_directions
from trainer.types import Message

STYLES = load_styles()
USER: Message = {"role": "user", "content": "Why is the sky blue?"}
SYSTEM: Message = {"role": "system", "content": "About me: I teach."}


def test_the_styles_have_names_that_fit_the_database_and_whole_sentences() -> None:
    names = [style.name for style in STYLES]
    assert len(names) == len(set(names)) > 8
    assert all(len(name) <= 32 for name in names)
    assert [s.name for s in STYLES if not s.wish] == ["as it comes"]
    assert all(style.wish[-1] in ".!" for style in STYLES if style.wish)


def test_a_wish_stands_behind_the_last_message_and_nothing_else_changes() -> None:
    wished: Message = {"role": "user", "content": "Why is the sky blue? Answer as a list."}
    assert in_style([SYSTEM, USER], Style("list", "Answer as a list.")) == (SYSTEM, wished)
    assert in_style([SYSTEM, USER], Style("as it comes", "")) == (SYSTEM, USER)
    assert in_style([SYSTEM, USER], None) == (SYSTEM, USER)


def test_every_style_with_a_wish_has_a_direction_in_the_order_of_the_styles() -> None:
    assert with_directions(STYLES) == STYLES[1:]
    assert STYLES[0].name == "as it comes"


def test_what_a_user_prefers_is_drawn_most_and_everything_else_goes_on_being_drawn() -> None:
    rng = random.Random(5)
    # A style that Attune had once says nothing about those it has.
    gone = {"with examples": Record(won=90)}
    records = {"list": Record(won=8, lost=1), "brief": Record(won=0, lost=2), **gone}
    drawn = [draw_styles(STYLES, records, rng) for _ in range(3000)]
    assert all(first is not second for first, second in drawn)
    favourites = Counter(first.name for first, _ in drawn)
    assert favourites.most_common(1)[0][0] == "list"
    assert favourites["list"] > 5 * favourites["brief"]
    others = Counter(second.name for _, second in drawn)
    assert set(others) == {style.name for style in STYLES}
    # Seldom, but still there for a change of mind.
    assert 0 < others["brief"] < others["warm"] / 5


def test_the_other_side_is_the_likeliest_of_the_rest() -> None:
    rng = random.Random(6)
    records = {style.name: Record(lost=4) for style in STYLES}
    records |= {"list": Record(won=30, lost=1), "brief": Record(won=8, lost=4)}
    drawn = Counter(draw_styles(STYLES, records, rng)[1].name for _ in range(1000))
    assert drawn["brief"] > 800


def test_pairs_in_two_styles_may_have_a_condition_of_their_own() -> None:
    rng = random.Random(8)
    shares = Shares(blind=0.2, base=0.2, varied=0.5)
    plans = [draw_plan(rng, shares, STYLES, styled=Condition.GENERIC) for _ in range(400)]
    both = (Condition.GENERIC, Condition.GENERIC)
    assert {plan.conditions == both for plan in plans if plan.styles[0]} == {True}
    assert {plan.conditions == both for plan in plans if not plan.styles[0]} == {False}


def test_only_pairs_to_learn_from_are_varied_and_the_favourite_stands_on_either_side() -> None:
    rng = random.Random(7)
    shares = Shares(blind=0.2, base=0.2, varied=0.5)
    records = {"list": Record(won=200)}
    plans = [draw_plan(rng, shares, STYLES, records) for _ in range(4000)]
    learn = [plan for plan in plans if plan.purpose == "learn"]
    varied = [plan for plan in learn if plan.styles != (None, None)]
    assert all(plan.styles == (None, None) for plan in plans if plan.purpose != "learn")
    assert abs(len(varied) / len(learn) - 0.5) < 0.04
    sides = Counter(
        [style.name if style else "" for style in plan.styles].index("list")
        for plan in varied
        if any(style and style.name == "list" for style in plan.styles)
    )
    assert abs(sides[0] - sides[1]) < 0.15 * sides.total()
