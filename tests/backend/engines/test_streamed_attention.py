"""Attention of one token in two calls: as transformers' layers, and only where it is the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from backend.engines.kernels import Kernels
from backend.engines.streamed_attention import StreamedAttention
from backend.engines.streaming import stream, unstream
from tests.backend.engines.by_hand import BY_HAND
from trainer.decoding import DecodingBatch

SMALL: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 192,
    "intermediate_size": 64,
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
    return sum(isinstance(module, StreamedAttention) for module in model.modules())


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


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17])
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


def with_biases() -> PreTrainedModel:
    config = Qwen2Config(**{name: value for name, value in SMALL.items() if name != "head_dim"})
    return Qwen2ForCausalLM(config)


def _turned_otherwise(
    plain: Callable[..., Any], hidden: Tensor, position_embeddings: Any, **rest: Any
) -> Any:
    cos, sin = position_embeddings
    return plain(hidden, position_embeddings=(cos, sin.roll(1, -1)), **rest)


def turned_otherwise() -> PreTrainedModel:
    """As where the two numbers that are turned together stand side by side."""
    model = llama()
    for layer in model.model.layers:
        plain = layer.self_attn.forward

        def other(
            hidden: Tensor, *, position_embeddings: Any, _plain: Any = plain, **rest: Any
        ) -> Any:
            cos, sin = position_embeddings
            return _plain(hidden, position_embeddings=(cos, sin.roll(1, -1)), **rest)

        layer.self_attn.forward = other
    return model


@pytest.mark.parametrize(
    "other",
    [
        with_biases,
        turned_otherwise,
        lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL)),  # norms of queries and keys
        lambda: llama(head_dim=16),
    ],
)
def test_other_attention_is_left_alone(
    kernels: Kernels, other: Callable[[], PreTrainedModel]
) -> None:
    model = other().eval().requires_grad_(False)
    with torch.inference_mode():
        stream(model, kernels)
    assert streamed_layers(model) == 0


def test_a_mask_it_does_not_know_goes_through_the_layer(kernels: Kernels) -> None:
    model = llama()
    bias = torch.zeros(1, 6, 1, 1)
    with torch.inference_mode():
        stream(model, kernels)
        layer = model.model.layers[0].self_attn
        hidden = torch.randn(1, 1, 192)
        angles = model.model.rotary_emb(hidden, position_ids=torch.zeros(1, 1, dtype=torch.long))
        made, _ = layer(hidden, position_embeddings=angles, attention_mask=bias)
        wanted, _ = layer.plain[0](hidden, position_embeddings=angles, attention_mask=bias)
    assert torch.equal(made, wanted)
