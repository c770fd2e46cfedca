"""Who is served when: the queue of the local engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedTokenizerBase

from backend.engines.base import (
    Condition,
    EngineFailed,
    GenerationRequest,
    Priority,
    Sampling,
    VersionRef,
)
from backend.engines.calls import Call, CallQueue, Row, Unread
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


def taken(queue: CallQueue, awaited_rows: int = 0, patient_rows: int = 0) -> list[int]:
    """Numbers of the calls that start beside the rows that run, in order."""
    numbers = []
    while (call := queue.take(awaited_rows, patient_rows)) is not None:
        numbers.append(call.order[1])
        if call.someone_waits:
            awaited_rows += len(call.rows)
        else:
            patient_rows += len(call.rows)
    return numbers


def drafted(number: int) -> Call:
    """Twenty drafts and the other side, which nobody waits for."""
    return call(number, rows=21, priority=Priority.PREFETCH)


def test_interactive_first_then_in_the_order_of_arrival() -> None:
    queue = CallQueue(8)
    queue.put(call(1, priority=Priority.PREFETCH))
    queue.put(call(2))
    queue.put(call(3))
    assert taken(queue) == [2, 3, 1]
    assert len(queue) == 0


def test_calls_are_kept_together_and_none_overtakes_one_that_somebody_waits_for() -> None:
    queue = CallQueue(8)
    for number, rows in enumerate((4, 5, 1)):
        queue.put(call(number, rows))
    assert taken(queue) == [0]
    assert taken(queue, 4) == []
    assert taken(queue, 3) == [1]
    assert taken(queue, 7) == [2]


def test_neither_kind_takes_the_others_places() -> None:
    queue = CallQueue(8)
    for number in range(5):
        queue.put(call(number, priority=Priority.PREFETCH))
        queue.put(call(10 + number))
    assert taken(queue) == [10, 11, 12, 13, 0, 1, 2, 3], "twice the limit in all"
    assert taken(queue, 8, 6) == [4]
    assert taken(queue, 6, 8) == [14]


def test_drafts_start_beside_all_the_pairs_that_people_wait_for() -> None:
    queue = CallQueue(24)
    queue.put(drafted(0))
    queue.put(call(1, priority=Priority.PREFETCH))
    assert taken(queue, awaited_rows=24) == [0, 1]
    for number in range(2, 15):
        queue.put(call(number))
    assert taken(queue, patient_rows=23) == list(range(2, 14)), "and take no place of theirs"


def test_drafts_that_do_not_fit_are_passed_by_pairs_but_not_for_ever() -> None:
    queue = CallQueue(24)
    for number in range(22):
        queue.put(drafted(number) if number < 2 else call(number, 2, Priority.PREFETCH))
    assert taken(queue) == [0, 2], "a pair beside the drafts, and others wait their turn"
    passing = []
    while now := taken(queue, patient_rows=21):  # the pair is done, the drafts go on
        passing += now
    assert passing == list(range(3, 14)), "with the first one as many rows as run at once"
    assert taken(queue, patient_rows=4) == []
    assert taken(queue, patient_rows=2) == [1], "now the others let them go first"
    assert taken(queue, patient_rows=21) == [14], "which begins anew for who comes next"


def test_nobody_passes_whom_people_wait_for_and_no_persona_passes_a_person() -> None:
    queue = CallQueue(24)
    queue.put(call(0, rows=3))
    queue.put(call(1, rows=1))
    queue.put(drafted(2))
    queue.put(call(3, priority=Priority.SIMULATED))
    assert taken(queue, 22, 10) == []


def test_personas_come_after_everybody() -> None:
    queue = CallQueue(8)
    for number in range(4):
        queue.put(call(number, priority=Priority.SIMULATED))
    queue.put(call(8, priority=Priority.PREFETCH))
    queue.put(call(9))
    assert taken(queue) == [9, 8, 0, 1, 2]
    queue.put(call(10))
    assert taken(queue, 0, 8) == [10]


def test_a_call_larger_than_the_limit_runs_alone_among_its_kind() -> None:
    queue = CallQueue(4)
    queue.put(call(0, rows=9))
    assert taken(queue, 1, 0) == []
    assert taken(queue, 0, 4) == [0]


def test_cancelled_calls_are_taken_out() -> None:
    queue = CallQueue(4)
    kept, gone = call(0), call(1)
    queue.put(kept)
    queue.put(gone)
    gone.generation.cancel()
    assert queue.take_cancelled() == [gone]
    assert queue.take_all() == [kept]


def test_prompts_are_read_for_whom_somebody_waits_first() -> None:
    unread = Unread()
    patient, awaited = call(0, priority=Priority.PREFETCH), call(1)
    unread.put(patient)
    unread.put(awaited)
    assert (len(unread), unread.awaited_rows) == (4, 2)
    assert unread.take(whole=True) == (awaited, list(awaited.rows))
    assert unread.take_all() == [patient]
    assert len(unread) == 0


def test_rows_of_one_set_of_weights_are_read_whole_or_prompt_by_prompt() -> None:
    first, second = (EncodedPrompt((number,), None) for number in (1, 2))
    for whole in (True, False):
        one = call(0, rows=4)
        a, b, c, base = one.rows
        for row, prompt in zip(one.rows, (first, second, first, first), strict=True):
            row.prompt = prompt
        base.request = replace(base.request, condition=Condition.BASE)
        unread = Unread()
        unread.put(one)
        read = []
        while len(unread):
            read.append(unread.take(whole=whole)[1])
        assert read == ([[a, b, c], [base]] if whole else [[a, c], [b], [base]])


def test_rows_nobody_wants_any_more_are_not_read() -> None:
    unread = Unread()
    kept, gone, failed = call(0), call(1), call(2)
    for each in (kept, gone, failed):
        unread.put(each)
    gone.generation.cancel()
    failed.generation.fail(EngineFailed("no memory left"))
    unread.let_go()
    assert [made.token_ids for made in gone.generation.result(0)] == [(), ()]
    assert unread.take_all() == [kept]


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
