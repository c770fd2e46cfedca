"""Streamed linear layers: the same products as the plain ones, and a model given back as it was."""

from __future__ import annotations

import ctypes
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from backend.engines import streaming, weights
from backend.engines.base import Condition, GenerationRequest, Sampling, VersionRef
from backend.engines.local import LocalEngine
from backend.engines.packing import PackedLinear
from backend.engines.streaming import (
    MAX_ROWS,
    Product,
    StreamedLinear,
    build,
    can_stream,
    stream_linears,
    unstream_linears,
)
from tests.backend.engines.making import write_random_version
from trainer.language_model import LanguageModel


def by_hand(*told: int) -> None:
    """The product as `streaming.c` promises it, for machines without a compiler."""
    x, w, y, rows, inside, out = told

    def at(address: int, *shape: int) -> torch.Tensor:
        floats = (ctypes.c_float * math.prod(shape)).from_address(address)
        return torch.frombuffer(floats, dtype=torch.float32).view(shape)

    at(y, rows, out).copy_(at(x, rows, inside) @ at(w, out, inside).T)


@pytest.fixture(scope="session")
def product() -> Product:
    """What this machine's compiler makes of `streaming.c`."""
    return streaming.compiled_product() or by_hand


@pytest.mark.parametrize("rows", [*range(1, MAX_ROWS + 1), 11])
@pytest.mark.parametrize("shape", [(576, 192), (40, 72), (37, 5), (7, 2), (1536, 64)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_plain_layer(
    product: Product, rows: int, shape: tuple[int, int], bias: bool
) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(*shape, bias=bias).requires_grad_(False)
    streamed = StreamedLinear(dense, product)
    inputs = torch.randn(rows, 3, shape[0])[:, -1:]  # strided, as the head gets it
    with torch.inference_mode():
        assert torch.allclose(streamed(inputs), dense(inputs), atol=1e-5)


def test_a_model_is_what_it_was_afterwards(tiny: LanguageModel, product: Product) -> None:
    model = tiny.model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        logits = model(ids).logits
        stream_linears(model, product)
        assert any(isinstance(module, StreamedLinear) for module in model.modules())
        assert torch.allclose(model(ids).logits, logits, atol=1e-3)
        unstream_linears(model)
        assert torch.equal(model(ids).logits, logits)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(isinstance(module, StreamedLinear) for module in model.modules())


def test_who_may_stream(tiny: LanguageModel) -> None:
    assert can_stream(tiny.model, rows=MAX_ROWS, threads=1)
    assert not can_stream(tiny.model, rows=MAX_ROWS + 1, threads=1)
    assert not can_stream(tiny.model, rows=MAX_ROWS, threads=2)
    tiny.model.to(torch.bfloat16)  # type: ignore[arg-type]
    assert not can_stream(tiny.model, rows=1, threads=1)


def test_a_compiler_that_fails_is_no_compiler(tmp_path: Path) -> None:
    assert build(str(tmp_path / "cc")) is None
    assert build("false") is None
    assert build("true") is None


def test_without_a_compiler_weights_are_packed(
    tiny: LanguageModel, product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_random_version(tiny, tmp_path / "version", seed=5)
    request = GenerationRequest(
        messages=({"role": "user", "content": "How do I start running?"},),
        condition=Condition.PERSONAL,
        user_id=1,
        sampling=Sampling(temperature=0.0, max_new_tokens=24),
    )
    made = []
    for compiled, layer in ((product, StreamedLinear), (None, PackedLinear)):
        monkeypatch.setattr(weights, "compiled_product", partial(lambda made: made, compiled))
        engine = LocalEngine(tiny, threads=1)
        engine.swap(VersionRef(1, tmp_path / "version"))
        assert any(isinstance(module, layer) for module in tiny.model.modules())
        made.append(engine.generate([request]).result(60)[0].token_ids)
        engine.close()
    assert made[0] == made[1]
