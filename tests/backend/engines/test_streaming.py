"""Streamed linear layers: the same products as the plain ones, and a model given back as it was."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from backend.engines import weights
from backend.engines.base import Condition, GenerationRequest, Sampling, VersionRef
from backend.engines.kernels import MAX_ROWS, Kernels
from backend.engines.local import LocalEngine
from backend.engines.packing import PackedLinear
from backend.engines.streaming import (
    StreamedLinear,
    can_stream,
    stream,
    streamed_norm,
    unstream,
)
from tests.backend.engines.making import write_random_version
from trainer.batching import Row
from trainer.language_model import LanguageModel
from trainer.prompting import EncodedPrompt
from trainer.scoring import response_logps


@pytest.mark.parametrize("size", [576, 40, 37, 3])
def test_a_norm_is_that_of_the_plain_module(kernels: Kernels, size: int) -> None:
    torch.manual_seed(0)
    plain = LlamaRMSNorm(size, eps=1e-5)
    plain.weight.data.normal_()
    with torch.inference_mode():
        streamed = streamed_norm(plain, kernels)
        assert streamed is not None
        for inputs in (torch.randn(5, 1, size), torch.randn(2, 3, size)[:, -1:]):
            assert torch.allclose(streamed(inputs), plain(inputs), atol=1e-5)
        plain.to(torch.bfloat16)
        streamed = streamed_norm(plain, kernels)
        assert streamed is not None
        halves = torch.randn(64, size).bfloat16()
        made, wanted = streamed(halves), plain(halves)
        assert made.dtype == torch.bfloat16
        assert torch.allclose(made, wanted, rtol=2**-7)
        assert (made == wanted).float().mean() > 0.99  # a last bit of the root may differ


class OneMoreNorm(LlamaRMSNorm):
    """As Gemma's: the weight counts from 1."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        return super().forward(hidden_states) + hidden_states


def test_another_kind_of_norm_is_left_alone(kernels: Kernels) -> None:
    with torch.inference_mode():
        assert streamed_norm(OneMoreNorm(8), kernels) is None
        assert streamed_norm(nn.LayerNorm(8), kernels) is None


@pytest.mark.parametrize("rows", [*range(1, 20), MAX_ROWS, MAX_ROWS + 1])
@pytest.mark.parametrize("shape", [(576, 192), (40, 72), (37, 5), (7, 2), (1536, 64), (33, 961)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_plain_layer(
    kernels: Kernels, rows: int, shape: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(*shape, bias=bias).requires_grad_(False)
    streamed = StreamedLinear(dense, kernels)
    inputs = torch.randn(rows, 3, shape[0])[:, -1:]  # strided, as the head gets it
    with torch.inference_mode():
        assert torch.allclose(streamed(inputs), dense(inputs), atol=1e-5)
        # In bf16 the sum is in fp32, and rounded once.
        rounded = inputs.bfloat16()
        wanted = dense.bfloat16().float()(rounded.float()).bfloat16()
        made = StreamedLinear(dense.bfloat16(), kernels)(rounded)
        assert made.dtype == torch.bfloat16
        assert torch.allclose(made, wanted, rtol=2**-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_is_what_it_was_afterwards(
    tiny: LanguageModel, kernels: Kernels, dtype: torch.dtype
) -> None:
    model = tiny.model
    model.to(dtype)  # type: ignore[arg-type]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    places = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        logits = model(ids).logits
        stream(model, kernels)
        assert any(isinstance(module, StreamedLinear) for module in model.modules())
        assert torch.allclose(model(ids).logits, logits, atol=1e-3 if dtype.itemsize > 2 else 0.1)
        assert places == {name: p.data_ptr() for name, p in model.named_parameters()}  # no copy
        unstream(model)
        assert torch.equal(model(ids).logits, logits)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(isinstance(module, StreamedLinear) for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [3, 40])
def test_a_streamed_model_scores_as_before(
    tiny: LanguageModel, kernels: Kernels, dtype: torch.dtype, tokens: int
) -> None:
    """In bf16 scoring keeps its residual stream in fp32: wider than the weights."""
    model = tiny.model
    model.to(dtype)  # type: ignore[arg-type]
    prompt = EncodedPrompt((5, 6, 7), None)
    rows = [Row(prompt, tuple(range(8, 8 + tokens)))]
    with torch.inference_mode():
        before = response_logps(model, rows, [None], max_tokens=128)
        stream(model, kernels)
        assert torch.allclose(response_logps(model, rows, [None], max_tokens=128), before)
        unstream(model)


def test_who_may_stream(tiny: LanguageModel) -> None:
    assert can_stream(tiny.model, rows=MAX_ROWS, threads=1)
    assert not can_stream(tiny.model, rows=MAX_ROWS + 1, threads=1)
    assert not can_stream(tiny.model, rows=MAX_ROWS, threads=2)
    tiny.model.to(torch.bfloat16)  # type: ignore[arg-type]
    assert can_stream(tiny.model, rows=1, threads=1)
    tiny.model.to(torch.float16)  # type: ignore[arg-type]
    assert not can_stream(tiny.model, rows=1, threads=1)


def test_without_a_compiler_weights_are_packed(
    tiny: LanguageModel, kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_random_version(tiny, tmp_path / "version", seed=5)
    request = GenerationRequest(
        messages=({"role": "user", "content": "How do I start running?"},),
        condition=Condition.PERSONAL,
        user_id=1,
        sampling=Sampling(temperature=0.0, max_new_tokens=24),
    )
    made = []
    for compiled, layer in ((kernels, StreamedLinear), (None, PackedLinear)):
        monkeypatch.setattr(weights, "compiled_kernels", partial(lambda made: made, compiled))
        engine = LocalEngine(tiny, threads=1)
        engine.swap(VersionRef(1, tmp_path / "version"))
        assert any(isinstance(module, layer) for module in tiny.model.modules())
        made.append(engine.generate([request]).result(60)[0].token_ids)
        engine.close()
    assert made[0] == made[1]
