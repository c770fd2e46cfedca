"""The real process, on a tiny saved model."""

from __future__ import annotations

import io
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.conftest import CONFIG, IDENTITY
from trainer.artifacts import verify
from trainer.language_model import LanguageModel
from trainer.types import RoundRequest, RoundResult
from trainer.worker import serve

ROOT = Path(__file__).parents[2]
LIMIT_S = 120


@pytest.fixture
def model_path(base: LanguageModel, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    base.model.save_pretrained(path)
    base.tokenizer.save_pretrained(path)
    return path


def command(model: Path) -> list[str]:
    options = {"model": model, "identity": IDENTITY, "device": "cpu", "threads": 1, "nice": 5}
    parts = [str(part) for key, value in options.items() for part in (f"--{key}", value)]
    return [sys.executable, "-m", "trainer", *parts]


@pytest.fixture
def worker(model_path: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with (
        (tmp_path / "stderr").open("w") as errors,
        subprocess.Popen(
            command(model_path),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        yield process
        process.kill()


def send(process: subprocess.Popen[str], request: RoundRequest) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request.to_json()) + "\n")
    process.stdin.flush()


def receive(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The next event; every line of stdout must be one."""
    assert process.stdout is not None
    event = json.loads(process.stdout.readline())
    assert isinstance(event, dict)
    return event


def until_ended(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    events = [receive(process)]
    while events[-1]["event"] not in ("done", "failed"):
        events.append(receive(process))
    return events


def test_ready_progress_done_then_a_failed_round_then_the_next(
    worker: subprocess.Popen[str],
    round_request: Callable[..., RoundRequest],
    initial: Path,
    tmp_path: Path,
) -> None:
    assert receive(worker) == {"event": "ready"}
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) >= 5

    send(worker, round_request(round_id=7))
    events = until_ended(worker)
    assert [event["event"] for event in events[:-1]] == ["progress"] * (len(events) - 1)
    assert {event["round_id"] for event in events} == {7}
    assert events[-1]["event"] == "done"
    result = RoundResult.from_json(events[-1]["result"])
    assert result.gate.passed, result.gate.reasons
    verify(Path(result.artifact))

    hot = replace(CONFIG, learning_rate_adapter=1e30, learning_rate_vector=1e30)
    send(worker, round_request(round_id=8, config=hot, output=str(tmp_path / "out" / "hot")))
    failed = until_ended(worker)[-1]
    assert (failed["event"], failed["round_id"]) == ("failed", 8)
    assert failed["reason"].endswith("became infinite or undefined at step 2 of 6")
    assert list((tmp_path / "out").glob("*")) == []

    assert worker.stdin is not None
    worker.stdin.write('{"round_id": 9}\n')
    worker.stdin.flush()
    failed = until_ended(worker)[-1]
    assert (failed["event"], failed["round_id"]) == ("failed", 9)
    assert failed["reason"] == "KeyError: 'pairs'"

    send(worker, round_request(round_id=10, parent=result.artifact, output=str(tmp_path / "r10")))
    assert until_ended(worker)[-1]["event"] == "done"
    verify(tmp_path / "r10")


def test_the_end_of_stdin_ends_the_process_in_the_middle_of_a_round(
    worker: subprocess.Popen[str], round_request: Callable[..., RoundRequest], tmp_path: Path
) -> None:
    assert receive(worker) == {"event": "ready"}
    endless = replace(CONFIG, epochs=1_000_000)
    send(worker, round_request(config=endless, output=str(tmp_path / "never")))
    while receive(worker).get("phase") != "train":
        pass
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(LIMIT_S) == 0
    assert not (tmp_path / "never").exists()


def test_a_model_that_cannot_be_loaded_is_one_line_and_status_2(tmp_path: Path) -> None:
    with subprocess.Popen(
        command(tmp_path / "no-model"),
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.wait(LIMIT_S) == 2
        assert process.stdout.read() == ""
        last = process.stderr.read().splitlines()[-1]
    assert last.startswith("trainer: the model cannot be loaded: ")


class Asked(queue.SimpleQueue[str]):
    """Lines that are there; then `queue.Empty` where the process would wait for the next."""

    def get(self, block: bool = True, timeout: float | None = None) -> str:
        return super().get(block=False)


def test_a_rounds_gpu_memory_is_given_back_before_its_end_is_reported(
    base: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = io.StringIO()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.write("emptied\n"))
    requests = Asked()
    requests.put('{"round_id": 9}')
    with pytest.raises(queue.Empty):
        serve(base, requests, events)
    ready, emptied, failed = events.getvalue().splitlines()
    assert json.loads(ready)["event"] == "ready"
    assert emptied == "emptied"
    assert json.loads(failed)["event"] == "failed"
