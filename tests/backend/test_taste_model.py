"""Choices → weights over traits: by hand, their doubt, and whether they foresee further choices."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from backend import taste_model
from backend.persona_rules import RULES
from backend.taste_model import STRANGER, TasteModel, taste_from
from backend.traits import COUNT, NAMES, TOLD, Vector, traits_of

SHORT = "The air scatters blue light."
LONG = (
    "The air scatters blue light more than red light, and that is why the sky above the town looks "
    "blue on most days, whatever the season."
)
PHRASES = (
    "You can do it!",
    "I remember how my own garden grew.",
    "For example, rain feeds the river.",
    "Take your time, and you will see.",
    "Why not try it?",
    "The approximation requires considerable mathematical sophistication.",
    "Water runs down.",
    "Temperature differences accelerate atmospheric circulation, whereas humidity decelerates it.",
    "It is so.",
    "We had 3 cups of tea, 2 cakes and a long walk by the sea until the sun went down.",
    "Perhaps the wind turns, because the sea is warm and the land is cold at night.",
    "Ask a friend.",
)


def test_a_stranger_expects_nothing_and_is_uncertain_of_what_has_a_name_alike() -> None:
    assert taste_from([]) is STRANGER
    assert (STRANGER.log_odds(SHORT, LONG), STRANGER.utility(LONG)) == (0.0, 0.0)
    assert STRANGER.choices == 0
    named, counted = [0.45**2] * len(TOLD), [0.2**2] * (COUNT - len(TOLD))
    assert np.allclose(STRANGER.covariance, np.diag(named + counted))


def _one_trait(text: str) -> Vector:
    """Stands for the traits of a text: only the first, which is the number the text holds."""
    return np.array([float(text), *[0.0] * (COUNT - 1)])


def test_the_posterior_worked_out_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one trait and choices of 2 over 0: where both updates leave w and λ as they are."""
    monkeypatch.setattr(taste_model, "traits_of", _one_trait)
    scale = 0.45
    for n in (1, 3, 40):
        taste = taste_from([("2", "0")] * n)
        w, precision = float(taste.weights[0]), float(taste.precision[0])
        missed = 1 / (1 + math.exp(2 * w))
        assert precision * w == pytest.approx(2 * n * missed, abs=1e-3)  # the slope there is 0
        variance = 1 / (precision + 4 * n * missed * (1 - missed))
        assert float(taste.covariance[0, 0]) == pytest.approx(variance)
        assert precision == pytest.approx(2 / (scale**2 + w**2 + variance), rel=1e-3)
        # Of what was never compared nothing is known but the prior.
        assert not taste.weights[1:].any()
        assert np.allclose(taste.covariance[1:, 1:], STRANGER.covariance[1:, 1:], rtol=1e-3)
        assert taste.choices == n


def test_a_weight_that_explains_much_is_pulled_less_than_those_that_explain_little() -> None:
    """Few traits matter to somebody: 20 choices by one of many, random in all others."""
    draws = np.random.default_rng(0)
    differences = draws.normal(size=(20, COUNT))
    taste = taste_model.fitted(differences * np.sign(differences[:, :1]))
    others = np.abs(taste.weights[1:])
    assert taste.weights[0] > 3 * others.max()
    assert taste.precision[0] < 0.2 * taste.precision[1:].min()


def test_doubt_draws_the_log_odds_towards_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taste_model, "traits_of", _one_trait)
    weights = np.array([0.5, *[0.0] * (COUNT - 1)])
    sure = TasteModel(weights, np.zeros((COUNT, COUNT)), np.ones(COUNT), 9)
    unsure = TasteModel(weights, np.eye(COUNT) * 2, np.ones(COUNT), 9)
    assert sure.log_odds("3", "1") == pytest.approx(1.0)
    assert unsure.log_odds("3", "1") == pytest.approx(1 / math.sqrt(1 + math.pi * (2 * 2 * 2) / 8))
    assert sure.utility("3") - sure.utility("1") == pytest.approx(1.0)


def test_log_odds_turn_with_the_pair_and_weights_with_the_choices() -> None:
    likes, dislikes = taste_from([(SHORT, LONG)] * 3), taste_from([(LONG, SHORT)] * 3)
    assert likes.log_odds(SHORT, LONG) == -likes.log_odds(LONG, SHORT) > 0.5
    assert np.allclose(likes.weights, -dislikes.weights)
    assert np.allclose(likes.covariance, dislikes.covariance)
    assert likes.log_odds(SHORT, SHORT) == 0
    assert likes.weights[NAMES.index("length")] < 0


def test_more_choices_say_more_and_contradicting_ones_nothing() -> None:
    said = [taste_from([(SHORT, LONG)] * n).log_odds(SHORT, LONG) for n in (1, 2, 4, 16, 64)]
    assert said == sorted(said)
    torn = taste_from([(SHORT, LONG), (LONG, SHORT)] * 8)
    assert torn.log_odds(SHORT, LONG) == pytest.approx(0, abs=1e-9)
    assert torn.choices == 16
    # Torn is not unknown: the doubt about this difference is smaller than a stranger's.
    apart = traits_of(SHORT) - traits_of(LONG)
    assert apart @ torn.covariance @ apart < 0.2 * apart @ apart


def _text(rng: random.Random) -> str:
    """A few phrases, sometimes as a list."""
    some = rng.sample(PHRASES, rng.randint(1, 6))
    return "\n".join(f"- {phrase}" for phrase in some) if rng.random() < 0.3 else " ".join(some)


def choices_of(rule: str, count: int, seed: int) -> list[tuple[str, str]]:
    """What a persona chooses among made-up texts."""
    rng = random.Random(seed)
    found: list[tuple[str, str]] = []
    while len(found) < count:
        one, other = _text(rng), _text(rng)
        verdict = RULES[rule].prefers(one, other)
        if verdict:
            found.append((one, other) if verdict > 0 else (other, one))
    return found


def foreseen(taste: TasteModel, choices: list[tuple[str, str]]) -> float:
    return sum(taste.log_odds(*choice) > 0 for choice in choices) / len(choices)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_twenty_choices_foresee_what_a_persona_will_choose(rule: str) -> None:
    taste = taste_from(choices_of(rule, 20, seed=1))
    later = choices_of(rule, 200, seed=2)
    assert foreseen(taste, later) > 0.7
    # Whoever wants the contrary is foreseen as seldom.
    assert foreseen(taste, choices_of(RULES[rule].opposite, 200, seed=3)) < 0.3


def test_the_order_of_choices_does_not_matter() -> None:
    made = choices_of("warm", 20, seed=4)
    one, other = taste_from(made), taste_from(made[::-1])
    assert np.allclose(one.weights, other.weights, atol=1e-9)
    assert np.allclose(one.covariance, other.covariance, atol=1e-9)


def test_the_same_taste_and_generator_draw_the_same_weights() -> None:
    taste = taste_from(choices_of("shorter", 10, seed=5))
    again = taste_from(choices_of("shorter", 10, seed=5))
    drawn = taste.draws(4, random.Random(7))
    assert drawn.shape == (4, COUNT)
    assert np.array_equal(drawn, again.draws(4, random.Random(7)))
    assert not np.array_equal(drawn, taste.draws(4, random.Random(8)))
    rng = random.Random(7)
    taste.draws(4, rng)
    assert not np.array_equal(drawn, taste.draws(4, rng)), "the generator has moved on"


def test_draws_scatter_as_the_posterior_does() -> None:
    taste = taste_from(choices_of("simple words", 20, seed=6))
    drawn = taste.draws(20_000, random.Random(1))
    assert np.allclose(drawn.mean(axis=0), taste.weights, atol=0.04)
    assert np.allclose(np.cov(drawn.T), taste.covariance, atol=0.05)


def test_any_texts_at_all_make_a_taste() -> None:
    odd = ["", " ", "!" * 400, "a" * 5000, "1. " * 300, "日本語のテキスト。", "\n\n" * 50]
    taste = taste_from([(one, other) for one in odd for other in odd] * 3)
    assert np.isfinite(taste.weights).all()
    assert np.isfinite(taste.draws(5, random.Random(0))).all()
    assert math.isfinite(taste_from([(odd[2], odd[0])] * 500).log_odds(odd[2], odd[0]))
