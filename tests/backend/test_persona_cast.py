"""Personas: how they decide, and who takes part."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from backend.errors import InvalidInput
from backend.passwords import name_key
from backend.persona_cast import COUNTS, FIRST_RULES, Persona, first_rules, rules_from
from backend.persona_rules import RULES

SHORT, LONG = "Short.", "A good deal longer than that."


def verdicts(persona: Persona, text_a: str, text_b: str, count: int = 2000) -> Counter[str]:
    rng = random.Random(7)
    return Counter(persona.verdict(text_a, text_b, rng) for _ in range(count))


def test_without_noise_the_rule_decides_on_either_side() -> None:
    strict = Persona("shorter", noise=0)
    assert verdicts(strict, SHORT, LONG) == {"a": 2000}
    assert verdicts(strict, LONG, SHORT) == {"b": 2000}
    assert verdicts(strict, SHORT, SHORT) == {"tie": 2000}
    assert verdicts(Persona("longer", noise=0), SHORT, LONG) == {"b": 2000}


def test_noise_is_the_share_drawn_at_random() -> None:
    """Half of the noisy verdicts fall on the better side all the same."""
    found = verdicts(Persona("shorter", noise=0.4), SHORT, LONG)
    assert found["b"] == pytest.approx(0.2 * 2000, rel=0.15)
    assert set(verdicts(Persona("shorter", noise=1), SHORT, SHORT)) == {"a", "b"}


def test_side_bias_takes_a_unread() -> None:
    found = verdicts(Persona("shorter", noise=0, side_bias=0.3), LONG, SHORT)
    assert found["a"] == pytest.approx(0.3 * 2000, rel=0.15)
    assert found["a"] + found["b"] == 2000
    assert verdicts(Persona("shorter", noise=1, side_bias=1), LONG, SHORT) == {"a": 2000}


def test_the_same_seed_decides_alike() -> None:
    persona = Persona("warm", noise=0.5, side_bias=0.2)
    first, second = (
        [persona.verdict(SHORT, LONG, rng) for _ in range(50)]
        for rng in (random.Random(3), random.Random(3))
    )
    assert first == second


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_what_is_no_probability_is_refused(share: float) -> None:
    with pytest.raises(InvalidInput, match="probability"):
        Persona("shorter", noise=share)
    with pytest.raises(InvalidInput, match="probability"):
        Persona("shorter", side_bias=share)


def test_nobody_can_give_themselves_a_personas_name() -> None:
    for rule in RULES:
        assert name_key(Persona(rule).username) is None
        assert len(Persona(rule).username) <= 64


def test_counts_are_whole_opposed_pairs() -> None:
    assert COUNTS == (2, 4, 6, 8)
    for count in COUNTS:
        rules = first_rules(count)
        assert rules == FIRST_RULES[:count]
        assert {RULES[rule].opposite for rule in rules} == set(rules)
    for count in (-2, 0, 1, 3, 10):
        with pytest.raises(InvalidInput, match="2, 4, 6 or 8"):
            first_rules(count)


def test_rules_as_typed() -> None:
    assert rules_from("") == rules_from(" 0 ") == ()
    assert rules_from("2") == ("shorter", "longer")
    assert rules_from("warm, no  lists,warm") == ("warm", "no lists")
    with pytest.raises(InvalidInput, match="did you mean shorter"):
        rules_from("shortr")
    with pytest.raises(InvalidInput, match="there are longer, shorter"):
        rules_from("zzz")
    with pytest.raises(InvalidInput, match="There is no rule ''"):
        rules_from("warm,")
