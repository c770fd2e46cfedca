"""What keeps one user's pairs from being made ahead keeps nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from backend.engines.base import GenerationRequest, Priority
from backend.engines.echo import EchoEngine
from backend.engines.generation import RunningGeneration
from db.models import Comparison
from db.queries import comparisons as queries
from db.session import Database
from dev.waiting import wait_for
from tests.backend.echo_house import open_house, prefetcher_of
from tests.conftest import Clock


class Narrow(EchoEngine):
    """Finds one user's prompts too long, as a model with a small context does."""

    narrow_for: int

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> RunningGeneration:
        if any(request.user_id == self.narrow_for for request in requests):
            raise ValueError("the prompt is too long for the model")
        return super().generate(requests, priority)


def test_a_prompt_that_does_not_fit_keeps_nobody_else_waiting(
    database: Database, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Narrow()
    with open_house(database, clock, tmp_path, engine=engine) as house:
        wordy, other = house.user("mia"), house.user("ben")
        engine.narrow_for = wordy
        prefetcher = prefetcher_of(house)
        prefetcher.wanted(wordy)
        wait_for(lambda: f"prefetch for user {wordy} put off" in caplog.text)
        prefetcher.wanted(other)
        wait_for(lambda: house.rows(Comparison) == 1)
        prefetcher.close()
    assert "too long for the model" in caplog.text


def test_a_visit_has_nobody_elses_pairs_looked_at_and_a_swap_everybodys(
    database: Database, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    count = queries.count_prefetched

    def note(session: Session, user_id: int, version_id: int) -> int:
        looked.append(user_id)
        return count(session, user_id, version_id)

    def twice(user_id: int) -> bool:
        return looked.count(user_id) == 2

    monkeypatch.setattr(queries, "count_prefetched", note)
    with open_house(database, clock, tmp_path) as house:
        first, second = house.user("mia"), house.user("ben")
        prefetcher = prefetcher_of(house)
        for user in (first, second):
            prefetcher.wanted(user)
            # Once for the visit, once more when the pair is there.
            wait_for(partial(twice, user))
        assert looked == [first, first, second, second]
        prefetcher.look_again()
        wait_for(lambda: len(looked) == 6)
        assert set(looked[4:]) == {first, second}
        prefetcher.close()
