"""Styles: what comes with Attune, which are drawn, how much of each becomes a user's vector."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from backend import styles as styles_module
from backend.engines.base import Condition
from backend.plans import Shares, draw_plan
from backend.styles import (
    Style,
    draw_styles,
    in_style,
    load_styles,
    style_shares,
    with_directions,
)
from backend.taste_model import STRANGER, TasteModel, taste_from
from backend.traits import COUNT, NAMES
from trainer.types import Message

STYLES = load_styles()
USER: Message = {"role": "user", "content": "Why is the sky blue?"}
SYSTEM: Message = {"role": "system", "content": "About me: I teach."}
LIST_TEXT = "1. Sun: light.\n2. Air: scatters it.\n3. Blue: most of all."
PLAIN_TEXT = "Air scatters sunlight. Blue light is scattered most, so the sky looks blue to us."


def liking(**weights: float) -> TasteModel:
    """A taste with these weights (`_` for a space), as good as certain."""
    mean = np.array([weights.get(name.replace(" ", "_"), 0.0) for name in NAMES])
    return TasteModel(mean, np.eye(COUNT) * 1e-6, np.ones(COUNT), 50)


def shares_of(taste: TasteModel) -> dict[str, float]:
    wished = [style.name for style in with_directions(STYLES)]
    return dict(zip(wished, style_shares(STYLES, taste), strict=True))


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
    taste = taste_from([(LIST_TEXT, PLAIN_TEXT)] * 20)
    drawn = [draw_styles(STYLES, taste, rng) for _ in range(3000)]
    assert all(first is not second for first, second in drawn)
    favourites = Counter(first.name for first, _ in drawn)
    assert favourites.most_common(1)[0][0] == "list"
    assert favourites["list"] > 5 * favourites["sober"]
    others = Counter(second.name for _, second in drawn)
    assert set(others) == {style.name for style in STYLES}
    # Seldom, but still there for a change of mind.
    assert 0 < others["sober"] < others["warm"] / 2


def test_a_stranger_is_asked_about_styles_that_differ() -> None:
    rng = random.Random(9)
    drawn = Counter(draw_styles(STYLES, STRANGER, rng)[0].name for _ in range(2000))
    # Weights of either sign are as likely: opposite styles come up about as often.
    assert all(drawn[name] > 100 for name in ("brief", "full", "list", "warm", "asking back"))


def test_the_other_side_is_the_likeliest_of_the_rest() -> None:
    rng = random.Random(6)
    taste = liking(length=-2.0)
    drawn = Counter(draw_styles(STYLES, taste, rng) for _ in range(100))
    (((first, second), count),) = drawn.most_common()
    assert (first.name, second.name, count) == ("asking back", "brief", 100)


def test_a_style_without_known_traits_is_drawn_as_the_middle() -> None:
    gone = Style("with examples", "Give an example.")
    known = next(style for style in STYLES if style.name == "list")
    likes, dislikes = liking(list_lines=2.0), liking(list_lines=-2.0)
    assert draw_styles([gone, known], likes, random.Random(1)) == (known, gone)
    assert draw_styles([gone, known], dislikes, random.Random(1)) == (gone, known)


def test_shares_are_nothing_for_a_stranger_and_one_style_for_a_certain_favourite() -> None:
    assert set(shares_of(STRANGER).values()) == {0.0}
    certain = shares_of(liking(list_lines=2.0))
    assert certain.pop("list") == pytest.approx(1.2)
    assert set(certain.values()) == {0.0}


def test_whoever_likes_it_as_it_comes_has_the_generic_vector() -> None:
    middle = liking(list_lines=-3.0, length=-0.01, first_person=-3.0, paragraphs=-3.0)
    only = [STYLES[0], *(s for s in STYLES if s.name in {"list", "warm", "full"})]
    assert style_shares(only, middle) == (0.0, 0.0, 0.0)


def test_shares_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chances ½, ¼, ¼ of three styles, cubed: 0.8, 0.1, 0.1; only what is above ⅓ counts."""
    three = [STYLES[0], *with_directions(STYLES)[:2]]
    means = np.zeros((3, COUNT))
    means[0, 0], means[1, 1], means[2, 2] = 1, 1, 1
    drawn = np.zeros((4, COUNT))
    drawn[[0, 1, 2, 3], [1, 1, 0, 2]] = 1  # the draws' favourites: the second twice, the others

    class Drawn(TasteModel):
        def draws(self, count: int, rng: random.Random) -> np.ndarray:
            return np.tile(drawn, (count // 4, 1))

    monkeypatch.setattr(styles_module, "traits_of_styles", lambda _names: means)
    taste = Drawn(np.zeros(COUNT), np.eye(COUNT), np.ones(COUNT), 1)
    assert style_shares(three, taste) == pytest.approx((1.2 * (0.8 - 1 / 3) / (2 / 3), 0))


def test_shares_grow_with_choices_and_are_the_same_each_time() -> None:
    grown = []
    for count in (1, 5, 20, 80):
        taste = taste_from([(LIST_TEXT, PLAIN_TEXT)] * count)
        shares = shares_of(taste)
        assert shares == shares_of(taste)
        assert max(shares, key=shares.__getitem__) == "list"
        assert all(0 <= share <= 1.2 for share in shares.values())
        grown.append(shares["list"])
    assert grown == sorted(grown)
    away = shares_of(taste_from([(PLAIN_TEXT, LIST_TEXT)] * 20))
    assert away["list"] == 0 < max(away.values())


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
    taste = liking(list_lines=2.0)
    plans = [draw_plan(rng, shares, STYLES, taste) for _ in range(4000)]
    learn = [plan for plan in plans if plan.purpose == "learn"]
    varied = [plan for plan in learn if plan.styles != (None, None)]
    assert all(plan.styles == (None, None) for plan in plans if plan.purpose != "learn")
    assert abs(len(varied) / len(learn) - 0.5) < 0.04
    assert all(any(style and style.name == "list" for style in plan.styles) for plan in varied)
    sides = Counter(
        [style.name if style else "" for style in plan.styles].index("list") for plan in varied
    )
    assert abs(sides[0] - sides[1]) < 0.15 * sides.total()
