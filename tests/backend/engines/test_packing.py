"""Packed linear layers: the same products, and the same bits back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from backend.engines.packing import (
    PackedLinear,
    can_pack,
    pack,
    pack_linears,
    unpack_linears,
)
from trainer.language_model import LanguageModel


@pytest.mark.parametrize("shape", [(1, 40), (2, 1, 40), (8, 1, 40), (3, 17, 40), (300, 40)])
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_those_of_the_plain_layer(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(40, 72, bias=bias).requires_grad_(False)
    packed = PackedLinear(dense, 8)
    inputs = torch.randn(shape)
    with torch.inference_mode():
        assert torch.allclose(packed(inputs), dense(inputs), atol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (7, 33), (1000, 48)])
def test_unpacking_gives_back_the_same_bits(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(pack(weight, 8).to_dense(), weight)


def test_a_model_is_what_it_was_after_packing_and_unpacking(tiny: LanguageModel) -> None:
    model = tiny.model
    assert can_pack(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    ids = torch.tensor([[5, 6, 7]])
    with torch.inference_mode():
        logits = model(ids).logits
        pack_linears(model, 4)
        assert any(isinstance(module, PackedLinear) for module in model.modules())
        packed_logits = model(ids).logits
        unpack_linears(model)
        assert torch.allclose(packed_logits, logits, atol=1e-3)
        assert torch.equal(model(ids).logits, logits)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not any(isinstance(module, PackedLinear) for module in model.modules())


def test_half_precision_is_left_alone(tiny: LanguageModel) -> None:
    model: Any = tiny.model  # `to` is typed as a decorator
    assert not can_pack(model.to(torch.bfloat16))
