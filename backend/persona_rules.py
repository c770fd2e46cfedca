"""What simulated users look for: written rules over a response's text, each with its opposite.

A rule is a number per text; the persona prefers the larger one. Pure: no model, no database.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_LIST_ITEM = re.compile(r"^\s*(?:[-*•+]|\d{1,2}[.)])\s+\S", re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?]+(?=\s|$)")
_SECOND_PERSON = frozenset(
    "you your yours yourself you're you've you'll you'd".split()  # noqa: SIM905
)
_FIRST_PERSON = frozenset("i i'm i've i'll i'd me my mine myself we we're our us".split())  # noqa: SIM905
_EXAMPLE = re.compile(r"\b(?:for example|for instance|such as|e\.g\.|imagine)", re.IGNORECASE)
_LONG_WORD_LETTERS = 7


@dataclass(frozen=True, slots=True)
class Rule:
    """One taste.

    Attributes:
        name: what people read, for instance "shorter".
        opposite: name of the rule that wants the contrary.
        wants: one sentence for people.
        score: text → how well it suits; only the order of two scores matters.
    """

    name: str
    opposite: str
    wants: str
    score: Callable[[str], float]

    def prefers(self, a: str, b: str) -> int:
        """1 where `a` suits better, −1 where `b` does, 0 where they suit alike."""
        first, second = self.score(a), self.score(b)
        return (first > second) - (first < second)


def words(text: str) -> list[str]:
    """The words of `text` in lower case, typographic apostrophes made plain."""
    return [word.lower().replace("’", "'") for word in _WORD.findall(text)]


def list_items(text: str) -> int:
    """Lines that begin as a bulleted or numbered item."""
    return len(_LIST_ITEM.findall(text))


def long_word_share(text: str) -> float:
    """Share of words with more than seven letters; 0 without words."""
    found = words(text)
    return sum(len(word) > _LONG_WORD_LETTERS for word in found) / max(1, len(found))


def warmth(text: str) -> float:
    """Second-person words and exclamation marks per word; 0 without words."""
    found = words(text)
    marks = sum(word in _SECOND_PERSON for word in found) + text.count("!")
    return marks / max(1, len(found))


def questions(text: str) -> float:
    """Question marks."""
    return float(text.count("?"))


def sentence_words(text: str) -> float:
    """Mean number of words per sentence."""
    return len(words(text)) / max(1, len(_SENTENCE_END.findall(text)))


def examples(text: str) -> float:
    """Phrases that introduce an example."""
    return float(len(_EXAMPLE.findall(text)))


def first_person(text: str) -> float:
    """Share of first-person words; 0 without words."""
    found = words(text)
    return sum(word in _FIRST_PERSON for word in found) / max(1, len(found))


def _length(text: str) -> float:
    return float(len(words(text)))


def _pair(
    score: Callable[[str], float], more: tuple[str, str], less: tuple[str, str]
) -> tuple[Rule, Rule]:
    """Two rules of contrary taste over one score; each side as (name, what it wants)."""
    return (
        Rule(more[0], less[0], more[1], score),
        Rule(less[0], more[0], less[1], lambda text: -score(text)),
    )


_PAIRS = (
    _pair(
        _length, ("longer", "Likes long, full answers."), ("shorter", "Likes short, crisp answers.")
    ),
    _pair(
        list_items,
        ("lists", "Likes bulleted and numbered lists."),
        ("no lists", "Likes running text without lists."),
    ),
    _pair(
        long_word_share,
        ("technical words", "Likes long, technical words."),
        ("simple words", "Likes short, simple words."),
    ),
    _pair(
        warmth,
        ("warm", "Likes to be spoken to, with warmth: you, your, exclamation marks!"),
        ("sober", "Likes a sober, impersonal tone."),
    ),
    _pair(
        questions,
        ("asks back", "Likes answers that ask something back."),
        ("no questions", "Likes answers that ask nothing."),
    ),
    _pair(
        sentence_words,
        ("long sentences", "Likes long sentences."),
        ("short sentences", "Likes short sentences."),
    ),
    _pair(
        examples,
        ("examples", "Likes answers that give examples."),
        ("no examples", "Likes answers that come without examples."),
    ),
    _pair(
        first_person,
        ("first person", "Likes answers that speak as I and we."),
        ("impersonal", "Likes answers in which nobody says I or we."),
    ),
)
RULES: dict[str, Rule] = {rule.name: rule for pair in _PAIRS for rule in pair}
