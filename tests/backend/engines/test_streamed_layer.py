"""A layer for one token in two calls: as transformers' layers, and only where it is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from backend.engines.kernels import Kernels
from backend.engines.streamed_layer import StreamedLayer
from backend.engines.streaming import stream, unstream
from tests.backend.engines.by_hand import BY_HAND
from trainer.decoding import DecodingBatch

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 192,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "initializer_range": 0.2,
}


def llama(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**(SMALL | changes))).eval().requires_grad_(False)


def streamed_layers(model: PreTrainedModel) -> int:
    return sum(isinstance(module, StreamedLayer) for module in model.modules())


def decoded(model: PreTrainedModel, rows: int) -> Tensor:
    """Logits (steps, rows, V) of rows of different length over some tokens."""
    embeddings = model.get_input_embeddings()
    torch.manual_seed(1)
    prompts = [embeddings(torch.randint(0, 60, (3 + 2 * row,))) for row in range(rows)]
    batch = DecodingBatch(model)
    batch.join(prompts, [1] * rows)
    steps = []
    for tokens in torch.randint(0, 60, (20, rows)):
        batch.advance(tokens)
        steps.append(batch.logits)
    return torch.stack(steps)


@pytest.mark.parametrize("rows", [1, 2, 5, 7, 20])
@pytest.mark.parametrize("heads", [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize("size", [32, 64])
def test_a_model_decodes_as_before(
    kernels: Kernels, rows: int, heads: tuple[int, int], size: int
) -> None:
    model = llama(num_attention_heads=heads[0], num_key_value_heads=heads[1], head_dim=size)
    with torch.inference_mode():
        wanted = decoded(model, rows)
        stream(model, kernels)
        assert streamed_layers(model) == 2
        made = decoded(model, rows)
        assert torch.allclose(made, wanted, atol=1e-3 * float(wanted.abs().max()))
        unstream(model)
        assert streamed_layers(model) == 0
        assert torch.equal(decoded(model, rows), wanted)


@pytest.mark.parametrize("rows", [1, 3, 16])
def test_in_bf16_it_is_as_near_as_bf16_is(kernels: Kernels, rows: int) -> None:
    exact = decoded(llama(), rows)
    model = llama().to(torch.bfloat16)  # type: ignore[arg-type]
    with torch.inference_mode():
        plain = (decoded(model, rows) - exact).abs().mean()
        stream(model, kernels)
        assert streamed_layers(model) == 2
        assert (decoded(model, rows) - exact).abs().mean() < 1.2 * plain


def test_shares_far_from_the_largest_are_nothing(kernels: Kernels) -> None:
    """Scores of some hundred: e^x is 0 there, not garbage."""
    model = llama()
    for name, weight in model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.mul_(20)
    with torch.inference_mode():
        wanted = decoded(model, 2)
        stream(model, kernels)
        made = decoded(model, 2)
    assert torch.allclose(made, wanted, atol=1e-2 * float(wanted.abs().max()))


def test_compiled_or_by_hand_is_the_same(kernels: Kernels) -> None:
    made = []
    for some in (kernels, BY_HAND):
        model = llama()
        with torch.inference_mode():
            stream(model, some)
            made.append(decoded(model, 3))
    assert torch.allclose(made[0], made[1], atol=1e-3 * float(made[0].abs().max()))


def turned_otherwise() -> PreTrainedModel:
    """As where the two numbers that are turned together stand side by side."""
    model = llama()
    for layer in model.model.layers:
        plain = layer.self_attn.forward

        def other(
            hidden_states: Tensor, *, position_embeddings: Any, _plain: Any = plain, **rest: Any
        ) -> Any:
            cos, sin = position_embeddings
            return _plain(hidden_states, position_embeddings=(cos, sin.roll(1, -1)), **rest)

        layer.self_attn.forward = other
    return model


@pytest.mark.parametrize(
    "other",
    [
        turned_otherwise,
        lambda: llama(hidden_act="gelu"),
        lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL)),  # norms of queries and keys
        lambda: llama(head_dim=16),
    ],
)
def test_other_layers_are_left_alone(
    kernels: Kernels, other: Callable[[], PreTrainedModel]
) -> None:
    model = other().eval().requires_grad_(False)
    with torch.inference_mode():
        stream(model, kernels)
    assert streamed_layers(model) == 0


def test_biases_are_added(kernels: Kernels) -> None:
    config = Qwen2Config(**{name: value for name, value in SMALL.items() if name != "head_dim"})
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            weight.normal_()
    with torch.inference_mode():
        wanted = decoded(model, 3)
        stream(model, kernels)
        assert streamed_layers(model) == 2
        assert torch.allclose(decoded(model, 3), wanted, atol=1e-3 * float(wanted.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_to_the_last_bit_whatever_is_beside_it(
    kernels: Kernels, dtype: torch.dtype
) -> None:
    """Alone, and among rows that join before and after it, are padded otherwise, and leave."""
    if kernels is BY_HAND:
        pytest.skip("this machine has no C compiler, and torch's products round by their rows")
    model = llama(hidden_size=198, vocab_size=1100, intermediate_size=77).to(dtype)  # type: ignore[arg-type]
    embeddings = model.get_input_embeddings()
    draws = torch.Generator().manual_seed(2)
    own, *others = (
        embeddings(torch.randint(0, 60, (length,), generator=draws)) for length in (9, 30, 4, 17)
    )
    with torch.inference_mode():
        stream(model, kernels)
        assert streamed_layers(model) == 2
        alone = DecodingBatch(model)
        alone.join([own], [1])
        beside = DecodingBatch(model)
        beside.join([others[0], own, others[1]], [4, 1, 3])
        place = 4
        for step in range(40):
            assert torch.equal(alone.logits[0], beside.logits[place])
            assert alone.logits.isfinite().all()
            if step == 5:
                beside.join([others[2]], [9])
            if step == 15:  # the widest rows leave
                beside.keep([3, place, *range(5, 17)])
                place = 1
            if step == 25:
                beside.keep([place])
                place = 0
            tokens = torch.randint(0, 60, (len(beside),), generator=draws)
            alone.advance(tokens[[place]])
            beside.advance(tokens)


def test_a_mask_it_does_not_know_goes_through_the_layer(kernels: Kernels) -> None:
    model = llama()
    bias = torch.zeros(1, 6, 1, 1)
    with torch.inference_mode():
        stream(model, kernels)
        layer = model.model.layers[0]
        hidden = torch.randn(1, 1, 192)
        angles = model.model.rotary_emb(hidden, position_ids=torch.zeros(1, 1, dtype=torch.long))
        made, wanted = (
            one(
                hidden,
                attention_mask=bias,
                past_key_values=DynamicCache(),
                position_embeddings=angles,
            )
            for one in (layer, layer.plain[0])
        )
    assert torch.equal(made, wanted)
