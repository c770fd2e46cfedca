"""Who the simulated users are and how each one decides. Pure: no model, no database, no thread.

A persona sees what a person sees, the two texts; never their conditions.
"""

from __future__ import annotations

import difflib
import random
from dataclasses import dataclass
from typing import Any

from backend.errors import InvalidInput
from backend.persona_rules import RULES, Rule

DEFAULT_NOISE = 0.1
DEFAULT_CHOICES = 40
# Whole opposed pairs, so that no taste is in the majority. Most easily seen in a text first.
FIRST_RULES = (
    *("shorter", "longer", "lists", "no lists"),
    *("simple words", "technical words", "warm", "sober"),
)
COUNTS = tuple(range(2, len(FIRST_RULES) + 1, 2))
# Neither the colon nor the blank can be in a name that people give themselves
# (`backend/passwords.py`): nobody can take such a name or sign in under it.
_NAME = "persona: {}"
_VERDICTS = {1: "a", 0: "tie", -1: "b"}


@dataclass(frozen=True, slots=True)
class Persona:
    """A simulated user's character.

    Attributes:
        rule: name of the rule in `RULES`.
        noise: probability of a verdict drawn at random from A and B.
        side_bias: probability of taking side A without reading.

    Raises:
        InvalidInput: there is no such rule, or a probability is none.
    """

    rule: str
    noise: float = DEFAULT_NOISE
    side_bias: float = 0.0

    def __post_init__(self) -> None:
        rule_named(self.rule)
        for name, share in (("noise", self.noise), ("side bias", self.side_bias)):
            if not 0 <= share <= 1:
                raise InvalidInput(f"The {name} is a probability, between 0 and 1.")

    @property
    def username(self) -> str:
        """The name of its account, the same at every start, so that its user vector goes on."""
        return _NAME.format(self.rule)

    @property
    def wants(self) -> str:
        """Its rule in words."""
        return RULES[self.rule].wants

    def as_json(self) -> dict[str, Any]:
        """What its account's row says of it."""
        return {"rule": self.rule, "noise": self.noise, "side_bias": self.side_bias}

    def verdict(self, text_a: str, text_b: str, rng: random.Random) -> str:
        """`a`, `b`, or `tie` where both texts suit alike. Pure but for `rng`."""
        if rng.random() < self.side_bias:
            return "a"
        if rng.random() < self.noise:
            return rng.choice("ab")
        return _VERDICTS[RULES[self.rule].prefers(text_a, text_b)]


def rule_named(name: str) -> Rule:
    """The rule.

    Raises:
        InvalidInput: there is none of that name.
    """
    if name not in RULES:
        near = difflib.get_close_matches(name, RULES, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(RULES)}."
        raise InvalidInput(f"There is no rule '{name}': {hint}")
    return RULES[name]


def first_rules(count: int) -> tuple[str, ...]:
    """Rules for `count` personas, in opposed pairs.

    Raises:
        InvalidInput: not one of `COUNTS`.
    """
    if count not in COUNTS:
        counts = f"{', '.join(map(str, COUNTS[:-1]))} or {COUNTS[-1]}"
        raise InvalidInput(f"Personas come in opposed pairs: {counts} of them.")
    return FIRST_RULES[:count]


def rules_from(words: str) -> tuple[str, ...]:
    """Rules from what somebody typed: a number of personas, or names separated by commas.

    Nothing, or 0, is nobody. A name given twice counts once.

    Raises:
        InvalidInput: not such a number, or no such rule.
    """
    typed = words.strip()
    if typed in {"", "0"}:
        return ()
    if typed.isdecimal():
        return first_rules(int(typed))
    names = dict.fromkeys(" ".join(name.split()) for name in typed.split(","))
    return tuple(rule_named(name).name for name in names)
