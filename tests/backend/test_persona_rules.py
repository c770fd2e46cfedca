"""The rules: which of two texts each one takes, and that opposites disagree."""

from __future__ import annotations

import pytest

from backend.persona_rules import RULES

LIST = "Do this:\n- wash the rice\n- boil it\n* eat"
NUMBERED = "1. Wash the rice\n2) Boil it"
PROSE = "Wash the rice, then boil it - as 2.5 cups of water allow."


@pytest.mark.parametrize(
    ("rule", "better", "worse"),
    [
        ("shorter", "Wash it.", "Wash it and then boil it."),
        ("lists", LIST, PROSE),
        ("lists", NUMBERED, PROSE),
        ("simple words", "Wash the rice and boil it.", "Thoroughly investigate alternatives."),
        ("warm", "You’ll love your rice!", "Rice is boiled."),
        ("asks back", "Is it rice? Is it hot?", "Is it rice?"),
        ("long sentences", "Wash the rice and boil it.", "Wash it. Boil it."),
        ("examples", "Grains, for example rice.", "Grains and rice."),
        ("first person", "I’m sure we boil it.", "It is boiled."),
    ],
)
def test_a_rule_and_its_opposite(rule: str, better: str, worse: str) -> None:
    opposite = RULES[RULES[rule].opposite]
    assert RULES[rule].prefers(better, worse) == 1
    assert RULES[rule].prefers(worse, better) == -1
    assert opposite.prefers(better, worse) == -1


@pytest.mark.parametrize("name", RULES)
def test_equal_and_empty_texts_suit_alike(name: str) -> None:
    for text in ("", "???", LIST, PROSE):
        assert RULES[name].prefers(text, text) == 0


def test_every_rule_has_an_opposite_that_names_it() -> None:
    assert len(RULES) == 16
    for name, rule in RULES.items():
        assert rule.name == name
        assert RULES[rule.opposite].opposite == name
        assert rule.opposite != name
        assert rule.wants.startswith("Likes ")
