"""The tree's attention against masked and against plain attention, on two families of models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from tests.trainer.tiny_decoders import DEVICES
from trainer import packing, scoring
from trainer.batching import Row
from trainer.packing import pack
from trainer.prompting import EncodedPrompt
from trainer.scoring import response_logps
from trainer.tree_attention import fits, tree_attention

SHAPE: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
}
PROMPT, OTHER = EncodedPrompt((5, 0, 0, 6, 7), 1), EncodedPrompt((5, 0, 0, 6, 8), 1)
ROWS = [
    Row(PROMPT, (3, 8, 9)),
    Row(PROMPT, (3, 2, 4, 1)),
    Row(OTHER, (3, 8)),
    Row(OTHER, (9,)),
]


def made(kind: str) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model: PreTrainedModel
        if kind == "llama":
            model = LlamaForCausalLM(LlamaConfig(**SHAPE))
        elif kind == "qwen2":
            model = Qwen2ForCausalLM(Qwen2Config(**SHAPE))
        else:
            model = MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=64))
    return model.eval().requires_grad_(False)


def logps_and_slopes(model: PreTrainedModel) -> tuple[torch.Tensor, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    one, other = (
        torch.randn(2, 32, generator=generator).to(model.device).requires_grad_() for _ in range(2)
    )
    logps = response_logps(model, ROWS, [one, one, one, other], max_tokens=1000).cpu()
    slopes = torch.autograd.grad((logps * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum(), [one, other])
    return logps.detach(), [slope.cpu() for slope in slopes]


def plain(model: PreTrainedModel) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Each row alone, every logit, the model's usual attention."""
    generator = torch.Generator().manual_seed(1)
    one, other = (torch.randn(2, 32, generator=generator).requires_grad_() for _ in range(2))
    logps = []
    for row, vector in zip(ROWS, [one, one, one, other], strict=True):
        ids = torch.tensor([*row.prompt.token_ids, *row.response_ids])
        words = model.get_input_embeddings()(ids)
        inputs = torch.cat([words[:1], vector, words[3:]])[None]
        read = len(row.prompt.token_ids)
        states = model(inputs_embeds=inputs).logits[0, read - 1 : -1].log_softmax(-1)
        logps.append(states.gather(1, ids[read:, None]).sum())
    together = torch.stack(logps)
    slopes = torch.autograd.grad(
        (together * torch.tensor([1.0, -2.0, 0.5, 3.0])).sum(), [one, other]
    )
    return together.detach(), list(slopes)


@pytest.mark.parametrize("together", [1, 4, 150])
@pytest.mark.parametrize(("kind", "quick"), [("llama", True), ("qwen2", True), ("mistral", False)])
def test_a_forest_has_the_scores_and_gradients_of_each_row_alone(
    monkeypatch, kind: str, quick: bool, together: int
) -> None:
    monkeypatch.setattr(packing, "_TOGETHER", together)
    model = made(kind)
    assert fits(model) == quick
    for made_so, alone in zip(logps_and_slopes(model), plain(model), strict=True):
        torch.testing.assert_close(made_so, alone, rtol=1e-5, atol=1e-5)


def test_a_mask_says_the_same_where_the_attention_does_not_fit(monkeypatch) -> None:
    model = made("llama")
    quick = logps_and_slopes(model)
    monkeypatch.setattr(scoring, "fits", lambda _: False)
    for one, other in zip(quick, logps_and_slopes(model), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral"])
def test_a_forest_has_the_same_scores_on_every_device(kind: str, device: str) -> None:
    model = made(kind)
    alone = plain(model)
    nn.Module.to(model, device)
    for made_so, wanted in zip(logps_and_slopes(model), alone, strict=True):
        torch.testing.assert_close(made_so, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_under_autocast_a_mask_rounds_and_hides_as_it_should(monkeypatch, device: str) -> None:
    monkeypatch.setattr(scoring, "fits", lambda _: False)
    model = made("llama")
    logps, slopes = plain(model)
    nn.Module.to(model, device, torch.bfloat16)
    rounded, rounded_slopes = logps_and_slopes(model)
    torch.testing.assert_close(rounded, logps, rtol=0.05, atol=0.1)
    for one, other in zip(rounded_slopes, slopes, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.1


def test_a_mask_that_is_aligned_is_the_mask() -> None:
    (forest,) = pack(ROWS, [None] * 4, max_tokens=100, device=torch.device("cpu"))
    mask = forest.mask(torch.float32)
    count = len(forest.ids)
    assert mask.shape == (1, 1, count, count)
    assert mask.stride(2) % 16 == 0
    assert (mask[0, 0].diagonal() == 0).all()
    assert set(mask.unique().tolist()) == {0.0, torch.finfo(torch.float32).min}


def test_the_model_has_its_own_attention_back_afterwards() -> None:
    model = made("llama")
    usual = model.config._attn_implementation
    with pytest.raises(KeyError, match="inside"), tree_attention(model):
        assert model.config._attn_implementation != usual
        raise KeyError("inside")
    assert model.config._attn_implementation == usual


def test_attention_that_does_more_is_refused() -> None:
    model = made("mistral")
    (forest,) = pack(ROWS[:2], [None, None], max_tokens=100, device=torch.device("cpu"))
    with tree_attention(model), pytest.raises(ValueError, match="does more"):
        model(input_ids=forest.ids[None], segments=forest.segments)
