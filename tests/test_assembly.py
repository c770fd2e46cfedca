"""What the house says of a model that the settings do not fit, or that has stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from transformers import AutoTokenizer

import assembly
from backend import base_model
from backend.engines.base import Condition, Engine, GenerationRequest, Sampling, VersionRef
from backend.engines.lanes import Lane
from backend.errors import ConfigurationError
from backend.settings import Settings
from db.session import Database
from dev.waiting import wait_for
from tests.backend.engines.making import tiny_model
from ui.language import Languages

Made = tuple[Engine, Callable[[], str | None]]


@pytest.fixture
def make_engine(
    tmp_path: Path, embedded_model_path: Path, sqlite_url: str
) -> Iterator[Callable[[int], Made]]:
    """Makes the engine of a tiny random model, for responses of so many tokens."""
    folder = tmp_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path, local_files_only=True)
    tiny_model(tokenizer).model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    with ExitStack() as closing:
        database = Database(sqlite_url)
        closing.callback(database.close)

        def make(max_new_tokens: int) -> Made:
            settings = Settings.model_validate(
                {"model": str(folder), "device": "cpu", "max_new_tokens": max_new_tokens}
            )
            ground = assembly.Ground(
                settings=settings,
                data=tmp_path,
                database=database,
                languages=Languages(),
                announce=lambda phase: None,
                closing=closing,
            )
            model = base_model.resolve(str(folder), None, tmp_path / "cache")
            engine, _, waits_for = assembly._make_engine(ground, model)
            closing.callback(engine.close)
            return engine, waits_for

        yield make


def test_responses_that_leave_no_room_for_a_prompt_are_refused_at_the_start(
    make_engine: Callable[[int], Made],
) -> None:
    make_engine(512 - 256)
    with pytest.raises(ConfigurationError) as refused:
        make_engine(512 - 255)
    assert "ATTUNE_MAX_NEW_TOKENS=257 is too much for this model" in str(refused.value)
    assert "of the 512 tokens that it can read, prompts need at least 256" in str(refused.value)


def test_a_model_that_has_stopped_by_a_fault_is_waited_for(
    make_engine: Callable[[int], Made], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: ended.append(args.exc_type))

    def fault(*_: object) -> None:
        raise LookupError

    monkeypatch.setattr(Lane, "admit", fault)
    engine, waits_for = make_engine(8)
    engine.write_initial(tmp_path / "initial")
    engine.swap(VersionRef(1, tmp_path / "initial"))
    assert waits_for() is None
    request = GenerationRequest(
        messages=({"role": "user", "content": "Hello?"},),
        condition=Condition.GENERIC,
        user_id=None,
        sampling=Sampling(),
    )
    engine.generate([request])
    wait_for(lambda: waits_for() == "the model has stopped; the log says why")
    wait_for(lambda: ended == [LookupError])
