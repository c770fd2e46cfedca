"""Attention of one new token: the same numbers as transformers' own, masked or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from backend.engines.attention import (
    one_token_attention,
    use_one_token_attention,
    use_plain_attention,
)
from trainer.language_model import LanguageModel


class Module(nn.Module):
    """What an attention function reads of the module that calls it."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.num_key_value_groups = groups
        self.is_causal = True


def padded(rows: int, width: int) -> Tensor:
    """Row r has r places of padding on its left."""
    return (torch.arange(width) >= torch.arange(rows)[:, None])[:, None, None]


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("heads", [(6, 6), (6, 2), (6, 1)])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_the_same_as_transformers_own(
    queries: int, heads: tuple[int, int], masked: bool, scaling: float | None
) -> None:
    torch.manual_seed(0)
    query = torch.randn(4, heads[0], queries, 8)
    key, value = torch.randn(2, 4, heads[1], 20, 8)[..., :11, :]  # views of a buffer with room
    mask = padded(4, 11).expand(4, 1, queries, 11) if masked else None
    module = Module(heads[0] // heads[1])
    made, _ = one_token_attention(module, query, key, value, mask, scaling=scaling)
    wanted, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)
    assert made.shape == wanted.shape
    assert torch.allclose(made, wanted, atol=1e-5)


def test_a_model_gets_its_own_attention_back(tiny: LanguageModel) -> None:
    before = tiny.model.config._attn_implementation
    use_one_token_attention(tiny.model)
    assert tiny.model.config._attn_implementation != before
    use_plain_attention(tiny.model)
    assert tiny.model.config._attn_implementation == before


def test_a_model_with_another_attention_is_left_alone(tiny: LanguageModel) -> None:
    tiny.model.set_attn_implementation("eager")
    use_one_token_attention(tiny.model)
    assert tiny.model.config._attn_implementation == "eager"
    use_plain_attention(tiny.model)
    assert tiny.model.config._attn_implementation == "eager"
