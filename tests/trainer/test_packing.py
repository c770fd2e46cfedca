"""Forests by hand: ids, places, who sees whom."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer import packing
from trainer.batching import Row
from trainer.packing import Forest, pack, tree_tokens
from trainer.prompting import EncodedPrompt

CPU = torch.device("cpu")
_1 = ((0, 1),)
FIRST, SECOND = EncodedPrompt((5, 6), None), EncodedPrompt((5, 4), None)


def one_forest(rows: list[Row], prefixes: list[torch.Tensor | None] | None = None) -> Forest:
    (forest,) = pack(rows, prefixes or [None] * len(rows), max_tokens=100, device=CPU)
    return forest


def seen(forest: Forest) -> list[list[int]]:
    """Per token the places it may look at."""
    return [row.nonzero().flatten().tolist() for row in forest.mask(torch.float32)[0, 0] == 0]


def test_two_responses_share_their_prompt() -> None:
    forest = one_forest([Row(FIRST, (3, 8, 9)), Row(FIRST, (7, 2))])
    # The last token of a response is predicted, never read: 9 and 2 are not among the inputs.
    assert forest.ids.tolist() == [5, 6, 3, 8, 7]
    assert forest.position_ids.tolist() == [0, 1, 2, 3, 2]
    # 3 and 7 are both predicted at 6 (place 1), 8 at 3, 9 at 8, and 2 at 7 (place 4).
    assert forest.positions.tolist() == [1, 2, 3, 1, 4]
    assert forest.labels.tolist() == [3, 8, 9, 7, 2]
    assert forest.sums.tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 1]]
    assert forest.branches
    # 7 sees the prompt and itself, not 3 and 8.
    assert seen(forest) == [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 4]]


@pytest.mark.parametrize(
    ("together", "segments"),
    [
        (1, [(0, 1, ()), (1, 3, _1), (3, 5, _1), (5, 6, (*_1, (3, 5))), (6, 7, (*_1, (3, 5)))]),
        # 7 3 | 7 8 behind "5 6" see the same before place 3, but not the 4 7 of the other prompt.
        (3, [(0, 3, ()), (3, 6, _1), (6, 7, (*_1, (3, 5)))]),
        (6, [(0, 6, ()), (6, 7, (*_1, (3, 5)))]),
        (7, [(0, 7, ())]),
    ],
)
def test_prompts_share_their_head_and_responses_their_first_words(
    monkeypatch, together: int, segments: list[object]
) -> None:
    monkeypatch.setattr(packing, "_TOGETHER", together)
    forest = one_forest([Row(FIRST, (7, 8, 9)), Row(SECOND, (7, 1)), Row(FIRST, (7, 3, 4))])
    assert forest.ids.tolist() == [5, 4, 7, 6, 7, 3, 8]
    assert forest.position_ids.tolist() == [0, 1, 2, 1, 2, 3, 3]
    assert seen(forest) == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 3],
        [0, 3, 4],
        [0, 3, 4, 5],
        [0, 3, 4, 6],
    ]
    assert [(s.start, s.end, s.before) for s in forest.segments] == segments
    assert forest.branches


def test_what_two_rows_predict_alike_is_computed_once() -> None:
    forest = one_forest([Row(FIRST, (7, 8)), Row(FIRST, (7, 8)), Row(FIRST, (7, 9))])
    assert forest.ids.tolist() == [5, 6, 7]
    assert list(zip(forest.positions.tolist(), forest.labels.tolist(), strict=True)) == [
        (1, 7),
        (2, 8),
        (2, 9),
    ]
    assert sorted(forest.sums.T.tolist()) == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [2, 2]]
    assert not forest.branches


def test_only_the_very_same_vector_is_shared() -> None:
    prompt = EncodedPrompt((5, 0, 0, 6), 1)
    mine, equal = torch.zeros(2, 3), torch.zeros(2, 3)
    rows = [Row(prompt, (7,)), Row(prompt, (8,)), Row(prompt, (9,)), Row(prompt, (7,))]
    forest = one_forest(rows, [mine, equal, mine, None])
    # The template's first token is everybody's; behind it stand three: `mine`, `equal`, none.
    assert len(forest.ids) == 1 + 3 + 3 + 3
    assert len(forest.prefixes) == 2
    assert {id(vector) for _, vector in forest.prefixes} == {id(mine), id(equal)}
    assert all(forest.position_ids[start] == 1 for start, _ in forest.prefixes)


def test_no_forest_of_several_rows_outgrows_its_bound() -> None:
    rows = [Row(FIRST, (first, 8, 9)) for first in (1, 2, 3)]
    # Prompt 2 + 2 read tokens a response: two rows fit into 6, a third begins a new forest.
    for bound, sizes in ((6, [6, 4]), (1, [4, 4, 4])):
        forests = pack(rows, [None] * 3, max_tokens=bound, device=CPU)
        assert [len(one.ids) for one in forests] == sizes
        assert sorted(row for one in forests for row in one.sums[1].unique().tolist()) == [0, 1, 2]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=8))
def test_each_row_finds_itself_in_the_tree(responses: list[list[int]]) -> None:
    rows = [Row(FIRST, tuple(ids)) for ids in responses]
    forest = one_forest(rows)
    assert len(forest.ids) == tree_tokens(rows, [None] * len(rows))
    looks = seen(forest)
    for index, row in enumerate(rows):
        mine = forest.sums[0][forest.sums[1] == index]
        assert forest.labels[mine].tolist() == list(row.response_ids)
        # What the last prediction rests on is the row itself, place by place, and nothing else.
        path = looks[forest.positions[mine[-1]]]
        assert forest.ids[path].tolist() == [5, 6, *row.response_ids[:-1]]
        assert forest.position_ids[path].tolist() == list(range(len(path)))
