"""Which traits of texts a user's choices clearly lean to: what may be said of a taste model.

Of the traits that have a name, as if there were no others: word counts that move with one of them
would take a part of its weight. Two conditions, both of the weights' normal posterior. The weight
has that sign with a probability of at least 0.9; and it lies farther from 0 than the weights of
somebody who chooses at random do. Without the second, four of eighteen traits would be named to a
person who clicks at random through forty pairs. A weight's variance over such a person's choices is
the diagonal of C − C Λ C, with the posterior's covariance C and the weights' precisions Λ (what
choices put into a ridge estimate).

Pure but for `LeaningReader`. Knows nothing of pages.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from backend.taste_model import TasteModel
from backend.traits import TOLD
from backend.user_tastes import taste_of
from db.queries.history import newest_choice
from db.session import Database

FEWEST = 10  # choices, below which nothing is said
SURE = 0.9
MOST = 5
# Standard deviations of a weight over random choices. Beyond it lies one of 18 traits of about one
# person of seven who chooses so (simulated: 18 % at most, 40 choices being the worst).
_BEYOND_CHANCE = 2.8
_REMEMBERED = 256  # users

_Newest = tuple[int, datetime] | None  # choice: what was read before it is out of date


@dataclass(frozen=True, slots=True)
class Leaning:
    """One trait that tells the chosen texts from those passed over.

    Attributes:
        trait: its name (`backend/traits.py`).
        more: whether texts with more of it are chosen, else those with less.
        strength: how many times likelier the text is chosen that has one unit of it more (or
            less), all else alike; above 1.
        certainty: posterior probability of that direction.
    """

    trait: str
    more: bool
    strength: float
    certainty: float


@dataclass(frozen=True, slots=True)
class Leanings:
    """What one user's choices lean to.

    Attributes:
        choices: how many it was read from.
        clear: strongest first, `MOST` at most; none below `FEWEST` choices.
    """

    choices: int
    clear: tuple[Leaning, ...]


def leanings_of(taste: TasteModel) -> Leanings:
    """The traits that may be named, of a taste model of `TOLD` alone."""
    if taste.choices < FEWEST:
        return Leanings(taste.choices, ())
    doubt = np.sqrt(np.diag(taste.covariance))
    pulled = taste.covariance @ np.diag(taste.precision) @ taste.covariance
    by_chance = np.diag(taste.covariance - pulled)
    bound = _BEYOND_CHANCE * np.sqrt(np.maximum(by_chance, 0.0))
    found = [
        Leaning(name, bool(weight > 0), math.exp(abs(weight)), certainty)
        for name, weight, spread, least in zip(TOLD, taste.weights, doubt, bound, strict=True)
        if (certainty := _normal(abs(weight) / spread)) >= SURE and abs(weight) > least
    ]
    found.sort(key=lambda leaning: -leaning.strength)
    return Leanings(taste.choices, tuple(found[:MOST]))


class LeaningReader:
    """Reads one user's; again only after a new choice, as it takes apart up to a thousand texts."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: OrderedDict[int, tuple[_Newest, Leanings]] = OrderedDict()

    def of(self, user_id: int) -> Leanings:
        """As this user's choices stand."""
        with self._database.read() as session:
            newest = newest_choice(session, user_id)
            with self._lock:
                known = self._known.get(user_id)
            if known is not None and known[0] == newest:
                return known[1]
            leanings = leanings_of(taste_of(session, user_id, traits=len(TOLD)))
        with self._lock:
            self._known[user_id] = newest, leanings
            self._known.move_to_end(user_id)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return leanings


def _normal(score: float) -> float:
    """Probability that a standard normal variable lies below."""
    return (1 + math.erf(score / math.sqrt(2))) / 2
