"""What keeps one user's pairs from being made ahead keeps nobody else's."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from backend.engines.base import GenerationRequest, Priority
from backend.engines.echo import EchoEngine
from backend.engines.generation import RunningGeneration
from backend.prefetch import Prefetcher
from db.models import Comparison
from db.session import Database
from dev.waiting import wait_for
from tests.backend.echo_house import open_house
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
        prefetcher = Prefetcher(
            database,
            engine,
            house.maker,
            target=1,
            clock=clock,
            rng=random.Random(5),
            gives_way_s=0.0,
        )
        prefetcher.wanted(wordy)
        wait_for(lambda: f"prefetch for user {wordy} put off" in caplog.text)
        prefetcher.wanted(other)
        wait_for(lambda: house.rows(Comparison) == 1)
        prefetcher.close()
    assert "too long for the model" in caplog.text
