"""Who is served when: the queue of the local engine."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedTokenizerBase

from backend.engines.base import Condition, GenerationRequest, Priority, Sampling, VersionRef
from backend.engines.calls import Call, CallQueue, Row
from backend.engines.versions import LoadedVersion
from trainer.prompting import EncodedPrompt, PromptFormat
from trainer.user_vectors import UserVectors


def call(number: int, rows: int = 2, priority: Priority = Priority.INTERACTIVE) -> Call:
    request = GenerationRequest(
        messages=({"role": "user", "content": "x"},),
        condition=Condition.GENERIC,
        user_id=None,
        sampling=Sampling(max_new_tokens=2),
    )
    made = [
        Row(
            request=request,
            prompt=EncodedPrompt((1,), None),
            decode=lambda ids: " ".join(map(str, ids)),
            stop_ids=frozenset({0}),
        )
        for _ in range(rows)
    ]
    version = LoadedVersion(
        ref=VersionRef(5, Path("v")),
        weights={},
        vectors=UserVectors(torch.zeros(1, 1), {}),
        prompts=PromptFormat(cast(PreTrainedTokenizerBase, None), 1),  # nothing is tokenized here
    )
    return Call(made, version, priority, number)


def taken(queue: CallQueue, running_rows: int) -> list[int]:
    """Numbers of the calls that start beside `running_rows`, in order."""
    numbers = []
    while (call := queue.take(running_rows)) is not None:
        numbers.append(call.order[1])
        running_rows += len(call.rows)
    return numbers


def test_interactive_first_then_in_the_order_of_arrival() -> None:
    queue = CallQueue(8)
    queue.put(call(1, priority=Priority.PREFETCH))
    queue.put(call(2))
    queue.put(call(3))
    assert taken(queue, 0) == [2, 3, 1]
    assert len(queue) == 0


def test_calls_are_kept_together_and_none_overtakes() -> None:
    queue = CallQueue(8)
    for number, rows in enumerate((4, 5, 1)):
        queue.put(call(number, rows))
    assert taken(queue, 0) == [0]
    assert taken(queue, 4) == []
    assert taken(queue, 3) == [1]
    assert taken(queue, 7) == [2]


def test_prefetched_work_leaves_room_for_a_pair() -> None:
    queue = CallQueue(8)
    for number in range(4):
        queue.put(call(number, priority=Priority.PREFETCH))
    assert taken(queue, 0) == [0, 1, 2]
    queue.put(call(9))
    assert taken(queue, 6) == [9]


def test_personas_come_after_everybody_and_leave_room_for_a_pair() -> None:
    queue = CallQueue(8)
    for number in range(4):
        queue.put(call(number, priority=Priority.SIMULATED))
    queue.put(call(8, priority=Priority.PREFETCH))
    queue.put(call(9))
    assert taken(queue, 0) == [9, 8, 0]
    assert taken(queue, 6) == []
    queue.put(call(10))
    assert taken(queue, 6) == [10]


def test_a_call_larger_than_the_limit_runs_alone() -> None:
    queue = CallQueue(4)
    queue.put(call(0, rows=9))
    assert taken(queue, 1) == []
    assert taken(queue, 0) == [0]


def test_cancelled_calls_are_taken_out() -> None:
    queue = CallQueue(4)
    kept, gone = call(0), call(1)
    queue.put(kept)
    queue.put(gone)
    gone.generation.cancel()
    assert queue.take_cancelled() == [gone]
    assert queue.take_all() == [kept]


def test_a_call_finishes_with_its_last_row() -> None:
    pair = call(0)
    pair.start()
    first, second = pair.rows
    first.token_ids += [7, 0]
    assert first.ended
    assert first.complete
    pair.close_row(first)
    assert not pair.generation.over
    second.token_ids += [8, 9]
    assert second.complete
    assert not second.ended
    pair.close_row(second)
    made = pair.generation.result(0)
    assert [(m.text, m.ended, m.version_id) for m in made] == [("7 0", True, 5), ("8 9", False, 5)]
