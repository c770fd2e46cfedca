from __future__ import annotations

import pytest

from tests.trainer.conftest import opposed_pairs
from trainer.batching import epoch_batches, pair_rows
from trainer.prompting import PromptFormat
from trainer.types import PreferencePair, ResponseTokens


def test_pair_rows_share_the_prompt_and_leave_the_reference_without_prefix(tokenizer) -> None:
    pair = opposed_pairs(tokenizer)[0]
    rows = pair_rows(pair, PromptFormat(tokenizer, 4))
    assert rows.chosen.prompt == rows.rejected.prompt
    assert rows.chosen.prompt.prefix_start is not None
    assert rows.reference_chosen.prompt.prefix_start is None
    assert rows.chosen.response_ids == pair.chosen.token_ids
    assert rows.reference_rejected.response_ids == pair.rejected.token_ids


def test_an_empty_response_is_refused_by_name(tokenizer) -> None:
    whole = opposed_pairs(tokenizer)[0]
    empty = PreferencePair(
        pair_id=77,
        user_id=1,
        messages=whole.messages,
        chosen=ResponseTokens(1, ()),
        rejected=whole.rejected,
    )
    with pytest.raises(ValueError, match="pair 77 has an empty response"):
        pair_rows(empty, PromptFormat(tokenizer, 4))


def test_epoch_batches_cover_everything_in_a_seeded_order() -> None:
    first, again = epoch_batches(10, 4, seed="a"), epoch_batches(10, 4, seed="a")
    assert first == again
    assert first != epoch_batches(10, 4, seed="b")
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(i for batch in first for i in batch) == list(range(10))
