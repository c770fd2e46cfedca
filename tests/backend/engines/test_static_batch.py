"""Rows in rooms of fixed size: the tokens of plain batches, with steps that are captured once.

On a CPU a captured step is the step itself; where there is a GPU the same runs as CUDA graphs.
"""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    Gemma2Config,
    PreTrainedModel,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from backend.engines import rooms, static_batch
from backend.engines.captured import capture_on
from backend.engines.rooms import Capture, Room, Size, bucket, size_for
from backend.engines.static_batch import Rooms, StaticBatch, batches, why_not_static
from tests.backend.engines.making import Counting
from tests.trainer.tiny_decoders import (
    CONFIGS,
    DEVICES,
    GROUPED,
    PLAIN,
    alone,
    in_company,
    model_of,
    prompts_of,
)
from trainer.decoding import DecodingBatch

NAMES: frozenset[str] = frozenset()


def capture(device: str) -> Capture:
    return capture_on(torch.device(device)) or Counting()


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 2), (3, 4), (8, 8), (9, 16), (128, 128)])
def test_buckets_are_powers_of_two(count: int, size: int) -> None:
    assert bucket(count) == size
    assert bucket(count, 32) == max(size, 32)


@pytest.mark.parametrize("slots", [1, 4, 5, 29, 32])
@pytest.mark.parametrize("places", [60, 512, 513, 4096])
def test_a_room_has_less_than_twice_what_is_needed_in_either(slots: int, places: int) -> None:
    made = size_for(slots, places)
    assert slots <= made[0] < max(2 * slots, 5)
    assert places <= made[1] < max(2 * places, 513)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PLAIN)
@torch.inference_mode()
def test_rows_joining_and_leaving_decode_as_if_alone(name: str, device: str) -> None:
    model = model_of(CONFIGS[name], device)
    assert why_not_static(model) is None
    prompts = prompts_of(model)
    shared = Rooms(model, capture(device))
    expected = [alone(model, prompt) for prompt in prompts]
    for _ in range(2):  # the second time in a room that others have left
        assert in_company(StaticBatch(shared, NAMES), prompts) == expected


@pytest.mark.parametrize("device", DEVICES)
@torch.inference_mode()
def test_logits_are_those_of_a_plain_batch_while_rows_and_room_grow(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the room's first places and slots and back, with slots left and taken again."""
    monkeypatch.setattr(rooms, "_LEAST_PLACES", 128)
    model = model_of(CONFIGS["llama"], device)
    prompts = prompts_of(model)
    static: StaticBatch = StaticBatch(Rooms(model, capture(device)), NAMES)
    plain = DecodingBatch(model)
    generator = torch.Generator().manual_seed(5)
    for turn in range(320):
        for batch in (static, plain):
            if turn == 0:
                batch.join(prompts[:2], [2, 1])
            if turn == 3:
                batch.keep([0, 2])
            if turn in (4, 200):
                batch.join(prompts[2:], [1, 2])
            if turn == 210:
                batch.keep([7, 1, 4])
        tokens = torch.randint(3, 97, (len(static),), generator=generator)
        static.advance(tokens)
        plain.advance(tokens)
        if turn % 20 < 5:
            torch.testing.assert_close(static.logits, plain.logits, rtol=1e-3, atol=1e-3)
    assert len(static) == len(plain) == 3


class Noting(Rooms):
    """Notes the sizes asked for, and which rooms are still there."""

    def __init__(self, model: PreTrainedModel, capture: Capture) -> None:
        super().__init__(model, capture)
        self.sizes: list[Size] = []
        self._made: weakref.WeakSet[Room] = weakref.WeakSet()

    def take(self, size: Size, like: Tensor) -> Room:
        room = super().take(size, like)
        self.sizes.append(size)
        self._made.add(room)
        return room

    @property
    def kept(self) -> list[Size]:
        return sorted(room.size for room in self._made)


def decode(shared: Rooms, prompt_tokens: int, rows: int, more: int = 0) -> None:
    """Rows of one prompt from joining to leaving, `more` of them joining later."""
    embedding = shared.model.get_input_embeddings()
    prompt = embedding(torch.full((prompt_tokens,), 7, device=shared.model.device))
    batch = StaticBatch(shared, NAMES)
    batch.join([prompt], [rows])
    batch.advance(torch.full((rows,), 5))
    if more:
        batch.join([prompt], [more])
        batch.advance(torch.full((rows + more,), 5))
    batch.keep([0])
    batch.advance(torch.tensor([5]))
    batch.keep([])


@torch.inference_mode()
def test_slots_needed_once_and_places_needed_once_make_no_room_of_both() -> None:
    shared = Noting(model_of(CONFIGS["llama"]), Counting())
    decode(shared, 6, 32)
    decode(shared, 600, 1)
    decode(shared, 6, 2)
    assert shared.sizes == [(32, 512), (4, 512), (4, 1024), (4, 512)]


@torch.inference_mode()
def test_a_large_room_is_let_go_once_only_small_ones_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(static_batch, "_LATELY", 6)
    shared = Noting(model_of(CONFIGS["llama"]), Counting())
    decode(shared, 600, 16)
    assert (16, 1024) in shared.kept
    for _ in range(4):
        decode(shared, 6, 2)
    assert (16, 1024) in shared.kept, "it may be needed again"
    decode(shared, 6, 2)
    decode(shared, 6, 2)
    assert shared.kept == [(4, 512)]


@torch.inference_mode()
def test_free_rooms_are_together_at_most_twice_the_largest_of_late() -> None:
    shared = Noting(model_of(CONFIGS["llama"]), Counting())
    for rows in (32, 16, 8, 4, 32, 16, 8, 4):
        decode(shared, 6, rows)
    assert shared.kept == [(4, 512), (8, 512), (16, 512), (32, 512)]
    decode(shared, 600, 4)
    decode(shared, 600, 8)
    assert shared.kept == [(4, 512), (4, 1024), (8, 512), (8, 1024), (16, 512)]


@torch.inference_mode()
def test_pairs_drafts_and_more_and_more_rows_in_turn_are_captured_once() -> None:
    counting = Counting()
    shared = Rooms(model_of(CONFIGS["llama"]), counting)
    for turn in range(3):
        for rows, more in ((2, 0), (29, 0), (2, 2), (2, 6), (2, 12), (28, 3)):
            decode(shared, 6, rows, more)
        if turn == 0:
            first = counting.steps
    assert counting.steps == first


@torch.inference_mode()
def test_a_kind_of_step_is_captured_once() -> None:
    model = model_of(CONFIGS["llama"])
    prompts = prompts_of(model)
    counting = Counting()
    shared = Rooms(model, counting)
    for _ in range(3):
        batch = StaticBatch(shared, NAMES)
        batch.join(prompts[:1], [2])
        for _ in range(4):
            batch.advance(torch.tensor([5, 6]))
        batch.keep([0])
        batch.advance(torch.tensor([5]))
        batch.keep([])
    assert counting.steps == 2, "for two rows, and for one"
    assert counting.beside == [False, True]
    other = StaticBatch(shared, frozenset({"q_proj"}))
    other.join(prompts[:1], [2])
    other.advance(torch.tensor([5, 6]))
    assert counting.steps == 3, "weights in other places"


@torch.inference_mode()
def test_a_room_in_use_is_nobody_elses() -> None:
    model = model_of(CONFIGS["llama"])
    prompts = prompts_of(model)
    shared = Rooms(model, Counting())
    one, other = StaticBatch(shared, NAMES), StaticBatch(shared, NAMES)
    one.join(prompts[:1], [1])
    one.advance(torch.tensor([5]))
    alone_so_far = one.logits.clone()
    other.join(prompts[1:2], [1])
    other.advance(torch.tensor([7]))
    one.advance(torch.tensor([6]))
    plain = DecodingBatch(model)
    plain.join(prompts[:1], [1])
    plain.advance(torch.tensor([5]))
    torch.testing.assert_close(alone_so_far, plain.logits, rtol=1e-4, atol=1e-4)
    plain.advance(torch.tensor([6]))
    torch.testing.assert_close(one.logits, plain.logits, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_the_graphs_of_a_room_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_MOST_GRAPHS", 2)
    model = model_of(CONFIGS["llama"])
    counting = Counting()
    batch = StaticBatch(Rooms(model, counting), NAMES)
    batch.join(prompts_of(model)[:1], [4])
    for rows in (4, 2, 1):
        batch.keep(range(rows))
        for _ in range(2):
            batch.advance(torch.full((rows,), 5))
    batch.join(prompts_of(model)[1:2], [3])
    batch.advance(torch.full((4,), 5))
    assert counting.steps == 4, "four rows once more: that graph was the oldest"


@pytest.mark.parametrize("name", sorted(CONFIGS.keys() - set(PLAIN)))
def test_a_model_that_looks_back_over_a_part_decodes_as_it_comes(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of(CONFIGS[name])
    made = batches(model, Counting())(NAMES)
    assert isinstance(made, DecodingBatch)
    assert "looks back over a part only" in caplog.text


def test_a_model_that_does_not_run_in_a_room_decodes_as_it_comes() -> None:
    """Its attention looks for a window's length, which its configuration hides from us."""
    model = model_of(Gemma2Config(**GROUPED, sliding_window=2))
    model.config.sliding_window = None
    assert "does not run" in (why_not_static(model) or "")


def attention_deaf_to_masks(*args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    module, query, key, value, _, *rest = args
    made: tuple[Tensor, None] = sdpa_attention_forward(
        module, query, key, value, None, *rest, **kwargs
    )
    return made


def test_what_a_room_gets_wrong_is_found_out() -> None:
    AttentionInterface.register("deaf", attention_deaf_to_masks)
    AttentionMaskInterface.register("deaf", sdpa_mask)
    model = model_of(CONFIGS["llama"])
    model.set_attn_implementation("deaf")
    assert "logits are off" in (why_not_static(model) or "")


def test_without_a_way_to_capture_batches_are_plain() -> None:
    assert capture_on(torch.device("cpu")) is None
    model = model_of(CONFIGS["llama"])
    assert isinstance(batches(model, None)(NAMES), DecodingBatch)
    assert isinstance(batches(model, Counting())(NAMES), StaticBatch)
