"""Which words a text is made of, whatever they mean: their lengths, their endings, the common ones.

Most tastes have no name among traits, yet what people like shows in words: plain counts of them are
what stylometry has told authors by since Mendenhall (1887, word lengths), and Mosteller and Wallace
(1963, common words). Nobody is told of them; they help to foresee and to rank.

Pure. Knows nothing of units, users and models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

_LENGTHS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 99))  # letters
_ENDINGS = ("ing", "ly", "ed", "tion", "s", "er", "al", "nt", "y", "e")
_STEM = 3  # letters at least before an ending: "thing" does not end as "walking" does
# The eighty that most responses of the embedded model hold, in all its styles.
_COMMON = """
a to the and of that in is with you can i it for your this but i'm as be not it's by on have my
help are was here been about make one or so way i've their which when has from you're always
time just also use happy what dear more an who me share people how no they am through at life
used do process like world where had new using all glad few first often sure
"""

CountWords = Callable[[Counter[str]], float]
"""Different words with how often each stands → which part of them is meant."""


def root_share(found: int, words: int) -> float:
    """The root of a share of a text's words, so that a few tell from none; 0 without words."""
    return math.sqrt(found / max(1, words))


def _share(of: Callable[[Counter[str]], int]) -> CountWords:
    return lambda counts: root_share(of(counts), counts.total())


def _of_length(least: int, most: int) -> CountWords:
    return _share(lambda counts: sum(n for w, n in counts.items() if least <= len(w) <= most))


def _ending(end: str) -> CountWords:
    least = len(end) + _STEM
    return _share(
        lambda counts: sum(n for w, n in counts.items() if len(w) >= least and w.endswith(end))
    )


def _same(word: str) -> CountWords:
    return _share(lambda counts: counts[word])


WORD_COUNTS: Mapping[str, CountWords] = {
    **{f"{least} to {most} letters": _of_length(least, most) for least, most in _LENGTHS},
    **{f"ends in {end}": _ending(end) for end in _ENDINGS},
    **{f"says {word}": _same(word) for word in _COMMON.split()},
}
