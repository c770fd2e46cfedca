"""What may be said of somebody's taste model, by hand and from choices in both databases."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from backend.leanings import Leaning, LeaningReader, Leanings, leanings_of
from backend.taste_model import STRANGER, TasteModel, taste_from
from backend.traits import TOLD
from db.models import Response
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock

WORDS = "we you they run rest, because perhaps! 12 (now) The and of to? slowly."


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


def texts(rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Pairs of texts at random, the shorter one first."""

    def text() -> str:
        return " ".join(rng.choices(WORDS.split(), k=rng.randrange(10, 60)))

    pairs = [(text(), text()) for _ in range(count)]
    return [(a, b) if len(a) < len(b) else (b, a) for a, b in pairs]


def model(weights: dict[str, float], variance: float, choices: int = 40) -> TasteModel:
    """A posterior with these means, one variance for all and precisions of 1."""
    means = np.array([weights.get(name, 0.0) for name in TOLD])
    return TasteModel(means, variance * np.eye(len(TOLD)), np.ones(len(TOLD)), choices)


def test_direction_strength_and_certainty_by_hand() -> None:
    # C = 0.25: doubt 0.5, and by chance sqrt(0.25 - 0.0625) = 0.433, three times that 1.299.
    found = leanings_of(model({"length": -1.4, "list lines": 1.5, "commas": 1.2}, 0.25))
    assert found.choices == 40
    assert [(one.trait, one.more) for one in found.clear] == [
        ("list lines", True),
        ("length", False),
    ]
    lists, short = found.clear
    assert lists.strength == pytest.approx(4.4817, abs=1e-4)  # e^1.5
    assert lists.certainty == pytest.approx(0.99865, abs=1e-5)  # Φ(3)
    assert short.strength == pytest.approx(4.0552, abs=1e-4)
    assert short.certainty == pytest.approx(0.99744, abs=1e-5)  # Φ(2.8)


def test_what_few_choices_say_must_be_sure_too() -> None:
    # C = 0.96: by chance only sqrt(0.96 - 0.9216) = 0.196, but the doubt is 0.98.
    found = leanings_of(model({"length": 1.2, "commas": 1.3}, 0.96))
    assert [one.trait for one in found.clear] == ["commas"]
    assert found.clear[0].certainty == pytest.approx(0.9077, abs=1e-4)  # Φ(1.3 / 0.98)


def test_five_at_most_the_strongest_first() -> None:
    found = leanings_of(model({name: 1 + n / 10 for n, name in enumerate(TOLD[:7])}, 0.01))
    assert [one.trait for one in found.clear] == list(TOLD[6:1:-1])


def test_too_few_choices_say_nothing() -> None:
    assert leanings_of(STRANGER) == Leanings(0, ())
    assert leanings_of(model({"length": 3.0}, 0.01, choices=9)) == Leanings(9, ())
    assert len(leanings_of(model({"length": 3.0}, 0.01, choices=10)).clear) == 1


def test_a_rule_is_named_and_a_choice_at_random_seldom() -> None:
    rng = random.Random(7)
    by_rule = texts(rng, 40)
    clear = leanings_of(taste_from(by_rule, traits=len(TOLD))).clear
    assert (clear[0].trait, clear[0].more) == ("length", False)
    named = 0
    for _ in range(60):
        at_random = [(a, b) if rng.random() < 0.5 else (b, a) for a, b in by_rule]
        named += leanings_of(taste_from(at_random, traits=len(TOLD))).clear != ()
    assert named <= 12  # by certainty alone it would be nearly all of them


def test_ones_own_standing_choices_are_read_again_after_each_change(judged: Judged) -> None:
    user, other, version = judged.user("mia"), judged.user("jo"), judged.version()
    for shorter, longer in texts(random.Random(7), 40):
        comparison = judged.comparison(user, version)
        last = judged.choice(user, comparison, "b")
        with judged.database.write() as session:
            for one in session.query(Response).filter_by(comparison_id=comparison):
                one.text = shorter if one.side == "B" else longer
    judged.choice(other, judged.comparison(other, version), "a")
    reader = LeaningReader(judged.database)
    found = reader.of(user)
    assert found.choices == 40
    assert ("length", False) in {(one.trait, one.more) for one in found.clear}
    assert reader.of(user) is found
    assert reader.of(other) == Leanings(1, ())
    judged.choice(user, comparison, "tie", supersedes=last)
    assert reader.of(user).choices == 39


def test_strength_is_how_many_times_likelier_one_unit_more_is_chosen() -> None:
    taste = model({"length": 2.0}, 1e-9)
    (found,) = leanings_of(taste).clear
    assert found == Leaning("length", more=True, strength=math.exp(2.0), certainty=1.0)
