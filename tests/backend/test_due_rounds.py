"""What a look at whether a round is due reads: it is taken every few seconds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.backend.counting import asked
from tests.backend.house import House


def test_a_look_reads_the_waiting_choices_once_and_who_is_served_only_if_it_matters(
    make_house: Callable[..., House], monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make_house(min_choices=50, fast_choices=3)
    house.choose(2)
    waiting, served = asked(monkeypatch, "waiting_choices"), asked(monkeypatch, "vector_served")
    house.training.tick()
    assert (len(waiting), len(served)) == (1, 0)
    house.choose(1)
    assert house.round().kind == "vector"
    assert (len(waiting), len(served)) == (3, 1)  # the round gathers for itself
