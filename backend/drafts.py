"""Several drafts for one response, and which of them suits its user best.

A taste model tells two texts apart long before training makes the model write that way. So where
nobody is watching the words come, a personal response is written several times, as the user is
served and along styles the user may like, and the draft with the highest utility is shown. Ranking
is the quick half of personalization, vectors and adapter are the slow one. Drafts that repeat
themselves, or only what was asked, or speak of something else, are passed over.

Pure but for the random generator handed in. Knows nothing of engines and databases.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from backend.plans import draw_seed
from backend.styles import Style, draw_styles
from backend.taste_model import TasteModel
from backend.traits import word_set

_AS_SERVED = 2  # drafts under the user's own vector; the others are made along styles
_REPEATING = 0.3  # share of repeated 4-grams of words, as the gate's bound
_OWN_WORDS = 4  # of a text that answers; whoever likes it short would else get the question back
_STEM = 4  # letters that tell a word, whatever its ending; a plural's s is none
_SHORTEST = 3  # letters of a word that names a matter
_NAMES_NOTHING = word_set(
    "about all and answer any are but can could describe did does explain for from get give has "
    "have help how its just know like make might not one our out please question say sentences "
    "should some suggest tell than that the their them then there these they this those three two "
    "use was what when where which who why will with without would write you your"
)
_WORD = re.compile(r"[^\W\d_]+")
_QUESTION = re.compile(r"[^.!?]*\?")
_GRAM = 4


@dataclass(frozen=True, slots=True)
class Draft:
    """How one draft is made: under the user's own vector where `style` is None."""

    style: Style | None
    seed: int


def draw_drafts(
    count: int, seed: int, style: Style | None, styles: Sequence[Style], taste: TasteModel
) -> tuple[Draft, ...]:
    """`count` drafts of one response; the first is what would be made without any others.

    Args:
        seed, style: of the first one.
        styles: what others are made along; all under the user's vector where there are none.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret; the same response has the same drafts
    drafts = [Draft(style, seed)]
    while len(drafts) < count:
        along: tuple[Style | None, ...] = (style,)
        if len(drafts) >= _AS_SERVED and len(styles) > 1:
            along = draw_styles(styles, taste, rng)
        drafts += [Draft(one, draw_seed(rng)) for one in along]
    return tuple(drafts[:count])


def best_of(texts: Sequence[str], taste: TasteModel, asked: str) -> int:
    """Index of the text with the highest utility among those that answer soundest.

    The first of them for a stranger; an empty one only where there is nothing else.

    Args:
        asked: what the texts answer.
    """
    written = [n for n, text in enumerate(texts) if text] or [0]
    flaws = {n: _flaws(texts[n], asked) for n in written}
    fewest = min(flaws.values())
    among = [n for n in written if flaws[n] == fewest]
    return max(among, key=lambda n: taste.utility(texts[n])) if taste.choices else among[0]


def _flaws(text: str, asked: str) -> int:
    """How many things speak against a text, whatever somebody likes."""
    return (
        (repetition(text) > _REPEATING)
        + (own_words(text, asked) < _OWN_WORDS)
        + (not names_the_matter(text, asked))
    )


def own_words(text: str, asked: str) -> int:
    """Different words that a text states: those of `asked` and those of questions do not count."""
    return len(set(_stated(text)).difference(_words(asked)))


def names_the_matter(text: str, asked: str) -> bool:
    """Whether a text states a word of what was asked, or nothing asked could be named.

    A small model answers many a prompt by offering its help, or with what comes to its mind; where
    short drafts are liked, those would be the first.
    """
    matter = _matters(_words(asked))
    return not matter or not matter.isdisjoint(_matters(_stated(text)))


def _matters(words: Sequence[str]) -> set[str]:
    named = [word for word in words if len(word) >= _SHORTEST and word not in _NAMES_NOTHING]
    return {word.removesuffix("s")[:_STEM] for word in named}


def _stated(text: str) -> list[str]:
    return _words(_QUESTION.sub(" ", text))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def repetition(text: str) -> float:
    """Share of a text's 4-grams of words that stood in it before; 0 below four words."""
    words = text.casefold().split()
    grams = [tuple(words[n : n + _GRAM]) for n in range(len(words) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
