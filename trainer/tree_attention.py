"""Attention over a forest of rows (see `trainer.packing`), for any transformers decoder.

Registered with transformers' own attention interface under `NAME`. Each segment is multiplied with
the keys it may see and hardly any others, by plain matrix products in both directions: little is
spent on what a mask would hide, and torch's fused attention, whose backward is slow in bfloat16 on
a CPU, is left out.

Knows nothing of rows, prompts and losses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from trainer import fused
from trainer.kernels import TYPES, Plan, kernels
from trainer.packing import Segment

NAME = "attune_tree"
_CHANGES = ("sliding_window", "attn_logit_softcapping", "attention_chunk_size")
_FOREIGN = ("sliding_window", "softcap", "s_aux", "position_bias")


def fits(model: PreTrainedModel) -> bool:
    """Whether the model's attention is the plain one, taken from transformers' interface.

    On a GPU one large product under a mask is quicker than many small ones.
    """
    config = model.config.get_text_config()
    plain = all(getattr(config, name, None) is None for name in _CHANGES)
    return plain and bool(model._supports_attention_backend) and model.device.type == "cpu"


@contextmanager
def tree_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model's decoder wants `segments` with its other arguments."""
    config = model.config.get_text_config()
    usual = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *,
    segments: Plan,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Tensor, None]:
    """Query (1, heads, N, D), key and value (1, key-value heads, N, D) → (1, N, heads, D)."""
    if attention_mask is not None or dropout or any(kwargs.get(name) for name in _FOREIGN):
        raise ValueError("this model's attention does more than the tree's can")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Rotated by fp32 angles, queries and keys arrive wider than autocast wants them.
    device = query.device.type
    low = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if low else query.dtype
    heads = query[0].to(dtype), key[0].to(dtype), value[0].to(dtype)
    if dtype in TYPES and (compiled := kernels()) is not None:
        places = heads[0].transpose(0, 1), heads[1].transpose(0, 1), heads[2].transpose(0, 1)
        return fused.tree(places, segments, scale, compiled)[None], None
    made: Tensor = _TreeAttention.apply(*heads, segments.segments, scale)  # type: ignore[no-untyped-call]
    return made[None], None


class _TreeAttention(torch.autograd.Function):
    """softmax(q kᵀ · scale) v, segment by segment. Shares are kept for the backward pass."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch's calling convention
        ctx: torch.autograd.function.FunctionCtx,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        segments: Sequence[Segment],
        scale: float,
    ) -> Tensor:
        made = query.new_empty(query.shape[1], query.shape[0], query.shape[2])
        kept = []
        wide = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            for one in segments:
                mine = _grouped(query, one, len(key)) * scale
                scores = mine @ _seen(key, one).transpose(1, 2)
                _hide(scores, one)
                shares = scores.softmax(-1, dtype=wide).to(query.dtype)
                _ungroup(made, shares @ _seen(value, one), one)
                kept.append(shares)
        if any(ctx.needs_input_grad):  # type: ignore[attr-defined]
            ctx.save_for_backward(query, key, value, *kept)
            ctx.segments, ctx.scale = segments, scale  # type: ignore[attr-defined]
        return made

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, *kept = ctx.saved_tensors  # type: ignore[attr-defined]
        segments, scale = ctx.segments, ctx.scale  # type: ignore[attr-defined]
        d_query = torch.empty_like(grad)
        d_key, d_value = torch.zeros_like(key), torch.zeros_like(value)
        grad = grad.transpose(0, 1)
        for one, shares in zip(segments, kept, strict=True):
            mine = _grouped(grad, one, len(key))
            _scatter(d_value, shares.transpose(1, 2) @ mine, one)
            slope = mine @ _seen(value, one).transpose(1, 2)
            slope = torch._softmax_backward_data(slope, shares, -1, shares.dtype).mul_(scale)
            _ungroup(d_query, slope @ _seen(key, one), one)
            _scatter(d_key, slope.transpose(1, 2) @ _grouped(query, one, len(key)), one)
        return d_query.transpose(0, 1), d_key, d_value, None, None


def _grouped(heads: Tensor, one: Segment, key_heads: int) -> Tensor:
    """(heads, N, D) → the segment's (key-value heads, heads of each · its length, D)."""
    return heads[:, one.start : one.end].reshape(key_heads, -1, heads.shape[-1])


def _ungroup(into: Tensor, made: Tensor, one: Segment) -> None:
    """Write what `_grouped` took apart to the segment's places in (N, heads, D)."""
    length = one.end - one.start
    into[one.start : one.end] = made.view(-1, length, made.shape[-1]).transpose(0, 1)


def _seen(heads: Tensor, one: Segment) -> Tensor:
    """(key-value heads, places before and in the segment, D)."""
    parts = [heads[:, start:end] for start, end in (*one.before, (one.start, one.end))]
    return torch.cat(parts, 1)


def _scatter(into: Tensor, made: Tensor, one: Segment) -> None:
    """Add gradients of what `_seen` put together to the places it came from."""
    at = 0
    for start, end in (*one.before, (one.start, one.end)):
        into[:, start:end] += made[:, at : at + end - start]
        at += end - start


def _hide(scores: Tensor, one: Segment) -> None:
    """Take what is hidden out of (key-value heads, heads of each · length, places seen)."""
    length = one.end - one.start
    own = scores.view(-1, length, scores.shape[-1])[:, :, -length:]
    own.masked_fill_(one.hidden, float("-inf"))


AttentionInterface.register(NAME, _attend)
