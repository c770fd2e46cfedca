"""Packs by hand: ids, places, who sees whom."""

from __future__ import annotations

import torch

from trainer.batching import Row
from trainer.packing import pack, pad_packs
from trainer.prompting import EncodedPrompt

CPU = torch.device("cpu")
FIRST, SECOND = EncodedPrompt((5, 6), None), EncodedPrompt((4,), None)


def test_two_responses_share_their_prompt() -> None:
    packs = pack([Row(FIRST, (7, 8, 9)), Row(FIRST, (3, 2))], [None, None], max_tokens=100)
    batch = pad_packs(packs, CPU)
    # The last token of a response is predicted, never read: 9 and 2 are not among the inputs.
    assert batch.ids.tolist() == [[5, 6, 7, 8, 3]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 2]]
    # 7 and 3 are both predicted at 6 (place 1), 8 at 7, 9 at 8, and 2 at 3 (place 4).
    assert batch.positions.tolist() == [1, 2, 3, 1, 4]
    assert batch.labels.tolist() == [7, 8, 9, 3, 2]
    assert batch.rows.tolist() == [0, 0, 0, 1, 1]
    assert batch.branches
    assert (batch.mask(torch.float32)[0, 0] == 0).tolist() == [
        [True, False, False, False, False],
        [True, True, False, False, False],
        [True, True, True, False, False],
        [True, True, True, True, False],
        [True, True, False, False, True],  # 3 sees the prompt and itself, not 7 and 8
    ]


def test_rows_without_company_are_padded_and_need_no_mask() -> None:
    packs = pack([Row(FIRST, (7, 8, 9)), Row(SECOND, (3,))], [None, None], max_tokens=100)
    batch = pad_packs(packs, CPU)
    assert batch.ids.tolist() == [[5, 6, 7, 8], [4, 0, 0, 0]]
    # 3 is predicted at place 0 of the second pack, flat 4.
    assert batch.positions.tolist() == [1, 2, 3, 4]
    assert batch.rows.tolist() == [0, 0, 0, 1]
    assert not batch.branches
    # Padding still sees itself: a row of scores that is hidden throughout has no softmax.
    assert (batch.mask(torch.float32)[1, 0] == 0).diagonal().all()


def test_another_prefix_or_another_prompt_object_is_another_pack() -> None:
    prefix, same_numbers = torch.zeros(1, 2), torch.zeros(1, 2)
    rows = [Row(FIRST, (7,)), Row(FIRST, (8,)), Row(FIRST, (9,)), Row(SECOND, (9,))]
    packs = pack(rows, [prefix, same_numbers, prefix, prefix], max_tokens=100)
    assert [one.rows for one in packs] == [(0, 2), (1,), (3,)]


def test_no_pack_outgrows_its_bound() -> None:
    rows = [Row(FIRST, (7, 8, 9))] * 3
    # Prompt 2 + 2 read tokens a response: two fit into 6, a third begins a new pack.
    assert [one.rows for one in pack(rows, [None] * 3, max_tokens=6)] == [(0, 1), (2,)]
    assert [one.rows for one in pack(rows, [None] * 3, max_tokens=1)] == [(0,), (1,), (2,)]
