"""Attention of one new token per row in two calls: projected and turned, then attended.

Stands for an attention layer of the usual kind (four products, rotary embeddings, nothing else),
which is made sure by running both. Longer inputs go through the layer itself. Knows nothing of rows
and requests.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from backend.engines.kernels import MAX_ROWS, Kernels

_PRODUCTS = ("q_proj", "k_proj", "v_proj", "o_proj")
_TURNED = 32  # a head is turned half by half, in vectors of up to 16
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2**-6}  # of the largest number


class StreamedAttention(nn.Module):
    """Stands for an attention layer and shares its weights."""

    q_proj: nn.Linear
    k_proj: nn.Linear
    v_proj: nn.Linear
    o_proj: nn.Linear

    def __init__(self, plain: nn.Module, kernels: Kernels, room: Tensor) -> None:
        super().__init__()
        for name in _PRODUCTS:
            self.add_module(name, plain.get_submodule(name))
        self.plain = (plain,)  # in a tuple, so that it is no submodule
        self._size: int = plain.head_dim  # type: ignore[assignment]
        self._scale: float = plain.scaling  # type: ignore[assignment]
        self._layer: int = plain.layer_idx  # type: ignore[assignment]
        low = self.q_proj.weight.dtype == torch.bfloat16
        self._project = kernels.project_bf16 if low else kernels.project
        self._attend = kernels.attend_bf16 if low else kernels.attend
        self._room = (room, room.data_ptr())

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,  # transformers' caches share no type but by name
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """`hidden_states` (B, T, H) → the same shape, and no weights."""
        if past_key_values is None or not self._suits(hidden_states, attention_mask):
            made: tuple[Tensor, Tensor | None] = self.plain[0](
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **kwargs,
            )
            return made
        query, key, value = self._projected(hidden_states, position_embeddings)
        keys, values = past_key_values.update(key, value, self._layer)
        attended: Tensor = self.o_proj(self._attended(query, keys, values, attention_mask))
        return attended, None

    def _suits(self, hidden: Tensor, mask: Tensor | None) -> bool:
        """Whether it is one token in few rows, of the weights' type and under a plain mask."""
        rows, tokens, _ = hidden.shape
        plain = mask is None or (mask.shape[1] == 1 and mask.dtype == torch.bool)
        return (
            tokens == 1 and rows <= MAX_ROWS and hidden.dtype == self.q_proj.weight.dtype and plain
        )

    def _projected(
        self, hidden: Tensor, angles: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, heads, 1, D), key and value (B, groups, 1, D) of hidden (B, 1, H)."""
        rows, _, inputs = hidden.shape
        wq, wk, wv = self.q_proj.weight, self.k_proj.weight, self.v_proj.weight
        heads, groups, size = wq.shape[0] // self._size, wk.shape[0] // self._size, self._size
        cos, sin = (angle.expand(rows, 1, size).contiguous() for angle in angles)
        hidden = hidden.contiguous()
        query = hidden.new_empty(rows, heads, 1, size)
        key, value = hidden.new_empty(2, rows, groups, 1, size)
        self._project(
            hidden.data_ptr(),
            wq.data_ptr(),
            wk.data_ptr(),
            wv.data_ptr(),
            cos.data_ptr(),
            sin.data_ptr(),
            query.data_ptr(),
            key.data_ptr(),
            value.data_ptr(),
            self._room[1],
            rows,
            inputs,
            heads,
            groups,
            size,
        )
        return query, key, value

    def _attended(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """(B, 1, heads · D) of query (B, heads, 1, D), keys and values (B, groups, T, D)."""
        rows, heads, _, size = query.shape
        groups, tokens = keys.shape[1:3]
        if keys.stride()[2:] != (size, 1) or values.stride() != keys.stride():
            keys, values = keys.contiguous(), values.contiguous()
        seen = None if mask is None else mask.expand(rows, 1, 1, tokens).contiguous()
        made = query.new_empty(rows, 1, heads * size)
        room = torch.empty(heads // groups, tokens)
        self._attend(
            query.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            None if seen is None else seen.data_ptr(),
            made.data_ptr(),
            room.data_ptr(),
            self._scale,
            rows,
            groups,
            heads // groups,
            size,
            tokens,
            *keys.stride()[:2],
        )
        return made


def streamed_attentions(
    model: PreTrainedModel, kernels: Kernels, room: Tensor
) -> dict[str, StreamedAttention]:
    """By name, what may stand for the model's attention layers: for all of them, or none.

    Args:
        room: `backend.engines.streaming.room_for` their products.
    """
    found = {
        name: StreamedAttention(module, kernels, room)
        for name, module in model.named_modules()
        if _usual(module)
    }
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    rotary = getattr(decoder, "rotary_emb", None)
    if rotary is None or not all(_same(stand_in, rotary) for stand_in in found.values()):
        return {}
    return found


def _usual(module: nn.Module) -> bool:
    """Whether these are four products without bias and nothing else, in heads of a fit size."""
    children = dict(module.named_children())
    size = getattr(module, "head_dim", None)
    return (
        children.keys() == set(_PRODUCTS)
        and all(type(c) is nn.Linear and c.bias is None for c in children.values())
        and isinstance(size, int)
        and size % _TURNED == 0
        and isinstance(getattr(module, "scaling", None), float)
        and isinstance(getattr(module, "layer_idx", None), int)
        and getattr(module, "sliding_window", None) is None
    )


def _same(streamed: StreamedAttention, rotary: nn.Module) -> bool:
    """Whether a fourth token fares alike in both, behind three that went through the layer."""
    weight = streamed.q_proj.weight
    hidden = torch.linspace(-2, 3, 2 * 4 * weight.shape[1]).sin().view(2, 4, -1).to(weight.dtype)
    angles = rotary(hidden, position_ids=torch.arange(4).expand(2, 4))
    made = []
    for layer in (streamed.plain[0], streamed):
        cache = DynamicCache()
        for some in (slice(0, 3), slice(3, 4)):
            turned = tuple(angle[:, some] for angle in angles)
            last = layer(
                hidden[:, some],
                position_embeddings=turned,
                attention_mask=None,
                past_key_values=cache,
            )[0]
        made.append(last)
    bound = _ROUNDING[weight.dtype] * float(made[0].abs().max())
    return bool((made[0] - made[1]).abs().max() <= bound)
