"""A decoder layer for one new token per row in two calls, and the cache's update between them.

Hundreds of small calls of a step cost as much as reading its weights does. Stands for a layer of
the usual kind (norm, attention with rotary embeddings, norm, gated product; both added to what came
in), which is made sure by running both. Longer inputs go through the layer itself. Knows nothing of
rows and requests.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from backend.engines.kernels import MAX_ROWS, Kernels, Layer

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_GATED = ("gate_proj", "up_proj", "down_proj")
_PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
_TURNED = 32  # a head is turned half by half, in vectors of up to 16
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2**-5}  # of the largest number


class StreamedLayer(nn.Module):
    """Stands for a decoder layer and shares its parts, whose weights may be exchanged."""

    def __init__(self, plain: nn.Module, kernels: Kernels) -> None:
        super().__init__()
        self.plain = (plain,)  # in a tuple, so that it is no submodule
        self._modules = plain._modules  # one dict: a part exchanged here is exchanged there
        parts: Any = plain
        attention, gated = parts.self_attn, parts.mlp
        norms = parts.input_layernorm, parts.post_attention_layernorm
        products = [getattr(attention, name) for name in _ATTENTION]
        products += [getattr(gated, name) for name in _GATED]
        weights = [product.weight for product in products]
        self._number: int = attention.layer_idx
        self._dtype = weights[0].dtype
        low = self._dtype == torch.bfloat16
        self._project = kernels.project_bf16 if low else kernels.project
        self._finish = kernels.finish_bf16 if low else kernels.finish
        self._size: int = attention.head_dim
        self._heads, self._groups = (len(weight) // self._size for weight in weights[:2])
        self._inner, self._hidden = weights[4].shape
        self._layer = Layer(
            first_eps=norms[0].variance_epsilon,
            second_eps=norms[1].variance_epsilon,
            scale=attention.scaling,
            hidden=self._hidden,
            inner=self._inner,
            groups=self._groups,
            heads=self._heads // self._groups,
            size=self._size,
        )
        self._told = ctypes.pointer(self._layer)
        # Versions exchange what parameters hold, never the parameters.
        self._weights: list[Tensor] = [*(norm.weight for norm in norms), *weights]
        self._biases: list[Tensor | None] = [product.bias for product in products]
        self._places: list[int | None] = []

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,  # transformers' caches share no type but by name
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """`hidden_states` (B, T, H) → the same shape."""
        if (
            past_key_values is None
            or position_embeddings is None
            or not self._suits(hidden_states, attention_mask)
        ):
            made: Tensor = self.plain[0](
                hidden_states,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                position_embeddings=position_embeddings,
                **kwargs,
            )
            return made
        self._look_up()
        hidden = hidden_states.contiguous()
        query, key, value = self._projected(hidden, position_embeddings)
        keys, values = past_key_values.update(key, value, self._number)
        return self._finished(hidden, query, keys, values, attention_mask)

    def _suits(self, hidden: Tensor, mask: Tensor | None) -> bool:
        """Whether it is one token in few rows, of the weights' type and under a plain mask."""
        rows, tokens, _ = hidden.shape
        plain = mask is None or (mask.shape[1] == 1 and mask.dtype == torch.bool)
        return tokens == 1 and rows <= MAX_ROWS and hidden.dtype == self._dtype and plain

    def _look_up(self) -> None:
        """Where the weights stand now: versions exchange them."""
        places: list[int | None] = [weight.data_ptr() for weight in self._weights]
        places += [None if bias is None else bias.data_ptr() for bias in self._biases]
        if places != self._places:
            for field, place in zip(Layer._fields_, places, strict=False):
                setattr(self._layer, field[0], place)
            self._places = places

    def _projected(
        self, hidden: Tensor, angles: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query (B, heads, 1, D), key and value (B, groups, 1, D) of hidden (B, 1, H)."""
        rows, size = len(hidden), self._size
        cos, sin = (angle.expand(rows, 1, size).contiguous() for angle in angles)
        query = hidden.new_empty(rows, self._heads, 1, size)
        key, value = hidden.new_empty(2, rows, self._groups, 1, size)
        room = torch.empty_like(hidden)
        self._project(
            self._told,
            hidden.data_ptr(),
            cos.data_ptr(),
            sin.data_ptr(),
            query.data_ptr(),
            key.data_ptr(),
            value.data_ptr(),
            room.data_ptr(),
            rows,
        )
        return query, key, value

    def _finished(
        self, hidden: Tensor, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
    ) -> Tensor:
        """(B, 1, H) of query (B, heads, 1, D), keys and values (B, groups, T, D)."""
        rows, tokens, size = len(hidden), keys.shape[2], self._size
        if keys.stride()[2:] != (size, 1) or values.stride() != keys.stride():
            keys, values = keys.contiguous(), values.contiguous()
        seen = None if mask is None else mask.expand(rows, 1, 1, tokens).contiguous()
        room = hidden.new_empty(rows, self._heads * size + self._hidden + 2 * self._inner)
        scores = torch.empty(self._heads // self._groups, tokens)
        made = torch.empty_like(hidden)
        self._finish(
            self._told,
            hidden.data_ptr(),
            query.data_ptr(),
            keys.data_ptr(),
            values.data_ptr(),
            None if seen is None else seen.data_ptr(),
            made.data_ptr(),
            room.data_ptr(),
            scores.data_ptr(),
            rows,
            tokens,
            *keys.stride()[:2],
        )
        return made


def streamed_layers(model: PreTrainedModel, kernels: Kernels) -> dict[str, StreamedLayer]:
    """By name, what may stand for the model's decoder layers: for all of them, or none."""
    found = {
        name: StreamedLayer(module, kernels)
        for name, module in model.named_modules()
        if _usual(module)
    }
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    rotary = getattr(decoder, "rotary_emb", None)
    if rotary is None or not all(_same(stand_in, rotary) for stand_in in found.values()):
        return {}
    return found


def _usual(module: nn.Module) -> bool:
    """Whether these are the usual parts and nothing else, with heads of a fit size."""
    if {name for name, _ in module.named_children()} != _PARTS:
        return False
    attention, gated = module.get_submodule("self_attn"), module.get_submodule("mlp")
    norms = (
        module.get_submodule("input_layernorm"),
        module.get_submodule("post_attention_layernorm"),
    )
    products = {name: part for name, part in gated.named_children() if name in _GATED}
    products |= dict(attention.named_children())
    size = getattr(attention, "head_dim", None)
    return (
        products.keys() == {*_ATTENTION, *_GATED}
        and all(type(p) is nn.Linear and p.weight.is_contiguous() for p in products.values())
        and all(isinstance(getattr(norm, "variance_epsilon", None), float) for norm in norms)
        and isinstance(size, int)
        and size % _TURNED == 0
        and isinstance(getattr(attention, "scaling", None), float)
        and isinstance(getattr(attention, "layer_idx", None), int)
        and getattr(attention, "sliding_window", None) is None
    )


def _same(streamed: StreamedLayer, rotary: nn.Module) -> bool:
    """Whether a fourth token fares alike in both, behind three that went through the layer."""
    norm: nn.Module = streamed.plain[0].get_submodule("input_layernorm")
    weight = norm.weight
    assert isinstance(weight, Tensor)
    hidden = torch.linspace(-2, 3, 2 * 4 * len(weight)).sin().view(2, 4, -1).to(weight.dtype)
    angles = rotary(hidden, position_ids=torch.arange(4).expand(2, 4))
    made = []
    for layer in (streamed.plain[0], streamed):
        cache = DynamicCache()
        for some in (slice(0, 3), slice(3, 4)):
            last = layer(
                hidden[:, some],
                attention_mask=None,
                past_key_values=cache,
                position_embeddings=tuple(angle[:, some] for angle in angles),
            )
        made.append(last - hidden[:, 3:])
    bound = _ROUNDING[weight.dtype] * float(made[0].abs().max())
    return bool((made[0] - made[1]).abs().max() <= bound)
