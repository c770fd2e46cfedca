"""Whose memory the trainer process trains on. Linux's own account of it is read."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from backend.trainer_process import TrainerProcess
from dev.waiting import wait_for
from tests.backend.house import IDENTITY, LIMIT_S, trainer_arguments
from tests.memory import mapped_mb
from tests.trainer.conftest import CONFIG, opposed_pairs, prompt
from trainer.artifacts import ADAPTER_WEIGHTS, TRAINER_STATE, USER_VECTORS
from trainer.language_model import LanguageModel, load_language_model
from trainer.round import write_initial
from trainer.sharing import SharedModel
from trainer.types import Progress, RoundFailed, RoundRequest

RECIPE = replace(CONFIG, epochs=1)


@pytest.fixture
def base(model_path: Path) -> LanguageModel:
    return load_language_model(model_path, IDENTITY, device="cpu", dtype="float32")


def trainer_process(
    model_path: Path, handles: Callable[[], str | None] | None = None
) -> TrainerProcess:
    return TrainerProcess([*trainer_arguments(model_path), "--dtype", "float32"], handles)


@pytest.fixture(scope="module")
def alone(model_path: Path) -> Iterator[TrainerProcess]:
    """One that is handed nothing."""
    with closing(trainer_process(model_path)) as process:
        yield process


@pytest.fixture
def train(base: LanguageModel, tmp_path: Path) -> Callable[..., Path]:
    first = tmp_path / "initial"
    write_initial(base, RECIPE, first)

    def run(
        process: TrainerProcess,
        name: str,
        *,
        parent: Path = first,
        on_progress: Callable[[Progress], None] = lambda _: None,
    ) -> Path:
        request = RoundRequest(
            round_id=1,
            pairs=opposed_pairs(base.tokenizer),
            held_out=(),
            probe_prompts=(prompt("What is tea?"),),
            parent=str(parent),
            output=str(tmp_path / name),
            config=RECIPE,
        )
        return Path(process.run(request, on_progress, LIMIT_S).artifact)

    return run


def head_mb(base: LanguageModel) -> float:
    """The size of the one matrix that every step reads whole."""
    head = base.model.get_output_embeddings().weight
    return head.numel() * head.element_size() / 2**20


def test_a_round_trains_on_the_very_file_and_changes_no_page_of_it(
    base: LanguageModel, alone: TrainerProcess, train: Callable[..., Path]
) -> None:
    """So do engine and trainer share it: whoever maps a file has the same memory."""
    train(alone, "one")
    assert alone.pid is not None
    memory = mapped_mb(alone.pid, "/model.safetensors")
    assert memory["Rss"] >= head_mb(base)
    assert memory["Anonymous"] == 0  # pages of its own, copied as they were written
    assert mapped_mb(os.getpid(), "/model.safetensors")["Anonymous"] == 0


@pytest.mark.usefixtures("file_system")
def test_every_child_attaches_the_weights_and_computes_the_same(
    base: LanguageModel,
    model_path: Path,
    alone: TrainerProcess,
    train: Callable[..., Path],
) -> None:
    shared = SharedModel(base.model)
    before = {name: p.clone() for name, p in base.model.named_parameters()}
    made: list[str | None] = []

    def handles() -> str | None:
        made.append(shared.handles())
        return made[-1]

    with closing(trainer_process(model_path, handles)) as trainer:
        rounds = [train(trainer, "one"), train(trainer, "two")]
        assert len(made) == 1
        assert trainer.pid is not None
        assert mapped_mb(trainer.pid, "/torch_")["Rss"] >= head_mb(base)
        assert mapped_mb(trainer.pid, "/model.safetensors") == {}

        os.kill(trainer.pid, signal.SIGKILL)
        wait_for(lambda: trainer.pid is None)
        rounds.append(train(trainer, "three"))
        assert len(made) == 2
    rounds.append(train(alone, "four"))
    for name in (ADAPTER_WEIGHTS, USER_VECTORS, TRAINER_STATE):
        assert len({(path / name).read_bytes() for path in rounds}) == 1
    assert all(torch.equal(before[name], p) for name, p in base.model.named_parameters())


def test_where_sharing_fails_the_trainer_loads_its_own(
    model_path: Path,
    train: Callable[..., Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    with closing(trainer_process(model_path, lambda: "bm8=")) as trainer:
        train(trainer, "one")
        assert trainer.pid is not None
        assert mapped_mb(trainer.pid, "/model.safetensors") != {}
    assert "loaded once more, sharing failed" in capfd.readouterr().err


def test_a_round_that_nobody_waits_for_any_more_ends_with_its_child(
    model_path: Path, train: Callable[..., Path], tmp_path: Path
) -> None:
    def broken(_progress: Progress) -> None:
        raise KeyError("no such round")

    with closing(trainer_process(model_path)) as trainer:
        with pytest.raises(KeyError):
            train(trainer, "one", on_progress=broken)
        assert trainer.pid is None
        assert not (tmp_path / "one").exists()
        train(trainer, "two")
        child = trainer.pid
        with pytest.raises(RoundFailed):  # as it says itself: it is ready for the next one
            train(trainer, "three", parent=tmp_path / "nowhere")
        assert trainer.pid == child
