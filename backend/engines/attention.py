"""Attention of one new token per row, as plain batched products: on a CPU a fraction of the cost.

`scaled_dot_product_attention` is made for long queries; for a single one its set-up takes longer
than the arithmetic. Registered with transformers' own attention interface, so any decoder that
goes through it can use it; longer queries are handed on. Knows nothing of rows and requests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_PLAIN = "sdpa"
_NAME = "attune_one_token"


def one_token_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,  # whatever else transformers hands to an attention function
) -> tuple[Tensor, None]:
    """Attention of query (B, heads, 1, D) over key and value (B, groups, T, D).

    Returns:
        (B, 1, heads, D), as transformers expects it.
    """
    batch, heads, queries, size = query.shape
    shared_mask = attention_mask is None or (
        attention_mask.shape[1] == 1 and attention_mask.dtype == torch.bool
    )
    if queries > 1 or not shared_mask or kwargs.get("position_bias") is not None:
        made: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, **kwargs
        )
        return made
    groups = key.shape[1]
    scaling = kwargs.get("scaling") or size**-0.5
    scaled = query.reshape(batch, groups, heads // groups, size) * scaling
    if key.dtype == torch.bfloat16:  # the other way round every key would be copied
        scores = (key @ scaled.transpose(-1, -2)).transpose(-1, -2)
    else:
        scores = scaled @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores.where(attention_mask, -torch.inf)
    return (scores.softmax(-1) @ value).reshape(batch, 1, heads, -1), None


def use_one_token_attention(model: PreTrainedModel) -> None:
    """Let a model on the CPU use it in place of torch's; `use_plain_attention` undoes it."""
    if model.device.type == "cpu" and model.config._attn_implementation == _PLAIN:
        model.set_attn_implementation(_NAME)


def use_plain_attention(model: PreTrainedModel) -> None:
    """Put torch's attention back where `use_one_token_attention` replaced it."""
    if model.config._attn_implementation == _NAME:
        model.set_attn_implementation(_PLAIN)


AttentionInterface.register(_NAME, one_token_attention)
AttentionMaskInterface.register(_NAME, sdpa_mask)
