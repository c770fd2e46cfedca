"""Layers of a frozen decoder computed by the kernels, where they do what the kernels do.

Stands in for four kinds of modules, whatever the architecture: RMS norms, gated MLPs, attention of
four products with rotary embeddings, and linear layers, plain or PEFT's low-rank ones. Each is
recognized by its parts, and of the first three the first time a few real tokens go both ways: a
module that does anything else keeps its own forward. Knows nothing of rows and losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft.tuners.lora import Linear as LowRankLinear
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer import fused
from trainer.kernels import TYPES, Kernels, Plan
from trainer.packing import causal

_PRODUCTS = {"q_proj", "k_proj", "v_proj", "o_proj"}
_GATED = {"gate_proj", "up_proj", "down_proj", "act_fn"}
_TRIED = 4  # tokens
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2**-6}  # of the largest number

_Forward = Callable[..., Any]
_same: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # what trials showed


@contextmanager
def quick_layers(model: PreTrainedModel, kernels: Kernels) -> Iterator[None]:
    """Inside, the model's layers are computed by the kernels; for one thread at a time."""
    replaced: list[nn.Module] = []
    try:
        for module in model.modules() if model.dtype in TYPES else ():
            if (forward := _stand_in(module, kernels)) is not None:
                module.forward = forward
                replaced.append(module)
        yield
    finally:
        for module in replaced:
            del module.forward


def _stand_in(module: nn.Module, kernels: Kernels) -> _Forward | None:
    """Another forward for a module of a kind that is known, unless a trial spoke against it."""
    if not _same.get(module, True) or "forward" in module.__dict__:
        return None
    if isinstance(module, nn.Linear | LowRankLinear):
        return _linear(module, kernels)
    children = {name for name, _ in module.named_children()}
    if children == _GATED:
        return _gated(module, kernels)
    if children == _PRODUCTS and not [*module.parameters(False), *module.buffers(False)]:
        return _attention(module, kernels)
    if not children and isinstance(getattr(module, "variance_epsilon", None), float):
        return _norm(module, kernels)
    return None


def _is_same(
    module: nn.Module,
    plain: Callable[[], Tensor],
    quick: Callable[[], Tensor],
    known: Callable[[nn.Module], bool] = lambda _: True,
) -> bool:
    """Whether a module is as one has to be, and a few tokens fare alike both ways; asked once."""
    if module not in _same:
        on, low = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        # What autocast keeps of a weight here would reach the step itself, without its gradient.
        with torch.no_grad(), torch.autocast("cpu", low, enabled=on, cache_enabled=False):
            one, other = plain(), quick()
        bound = _ROUNDING[other.dtype] * float(one.abs().max())
        alike = one.shape == other.shape and torch.allclose(
            one.float(), other.float(), rtol=0, atol=bound, equal_nan=True
        )
        _same[module] = alike and known(module)
    return _same[module]


def _has_silu(gated: Any) -> bool:
    """Tokens' numbers may be small, and close to 0 many a function looks like another."""
    trial = torch.linspace(-9, 9, 64, dtype=torch.float32)
    return torch.allclose(gated.act_fn(trial), nn.functional.silu(trial))


def _norm(module: nn.Module, kernels: Kernels) -> _Forward | None:
    plain, weight, eps = module.forward, module.weight, module.variance_epsilon
    if not _frozen(module) or not isinstance(weight, Tensor) or not isinstance(eps, float):
        return None

    def forward(hidden_states: Tensor) -> Tensor:
        """(…, H) fp32 → the weight's type: products that follow round to it anyway."""
        some = hidden_states[..., :_TRIED, :]

        def quick(x: Tensor) -> Tensor:
            return fused.norm(x, weight, eps, kernels)

        if hidden_states.dtype == torch.float32 and _is_same(
            module, lambda: plain(some), lambda: quick(some)
        ):
            return quick(hidden_states)
        made: Tensor = plain(hidden_states)
        return made

    return forward


def _gated(module: Any, kernels: Kernels) -> _Forward:
    plain = module.forward
    up, rise, down = (module.get_submodule(name) for name in ("gate_proj", "up_proj", "down_proj"))
    products = _products(kernels, up, rise)

    def quick(x: Tensor) -> Tensor:
        raised, by = products(x)
        made: Tensor = down(fused.gate(raised, by, kernels))
        return made

    def forward(x: Tensor) -> Tensor:
        some = x[..., :_TRIED, :]
        if _is_same(module, lambda: plain(some), lambda: quick(some), _has_silu):
            return quick(x)
        made: Tensor = plain(x)
        return made

    return forward


def _attention(module: nn.Module, kernels: Kernels) -> _Forward | None:
    plain = module.forward
    size, scale = getattr(module, "head_dim", None), getattr(module, "scaling", None)
    if not isinstance(size, int) or not isinstance(scale, float):
        return None
    q_proj, k_proj, v_proj, o_proj = (
        module.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    )
    products = _products(kernels, q_proj, k_proj, v_proj)

    def quick(hidden: Tensor, angles: tuple[Tensor, Tensor], plan: Plan) -> Tensor:
        shape = (hidden.shape[1], -1, size)
        cos, sin = (angle[0].float().contiguous() for angle in angles)
        query, key, value = (made.view(shape) for made in products(hidden))
        query = fused.turn(query, cos, sin, kernels)
        key = fused.turn(key, cos, sin, kernels)
        made = fused.tree((query, key, value), plan, scale, kernels)
        attended: Tensor = o_proj(made.view(*hidden.shape[:2], -1))
        return attended

    def forward(
        hidden_states: Tensor,
        position_embeddings: tuple[Tensor, Tensor],
        attention_mask: Tensor | None = None,
        *,
        segments: Plan,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        few = Plan([causal(min(_TRIED, hidden_states.shape[1]))])
        some = hidden_states[:, :_TRIED]
        angles = (position_embeddings[0][:, :_TRIED], position_embeddings[1][:, :_TRIED])
        if (
            attention_mask is None
            and angles[0].shape[-1] == size
            and _is_same(
                module,
                lambda: plain(
                    hidden_states=some,
                    position_embeddings=angles,
                    attention_mask=None,
                    segments=few,
                    **kwargs,
                )[0],
                lambda: quick(some, angles, few),
            )
        ):
            return quick(hidden_states, position_embeddings, segments), None
        made: tuple[Tensor, Tensor | None] = plain(
            hidden_states=hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            segments=segments,
            **kwargs,
        )
        return made

    return forward


def _linear(module: nn.Module, kernels: Kernels) -> _Forward | None:
    """For a frozen layer, plain or with one plain low-rank adapter."""
    if _parts(module) is None:
        return None
    products = _products(kernels, module)
    return lambda x: products(x)[0]


def _products(kernels: Kernels, *layers: nn.Module) -> Callable[[Tensor], Sequence[Tensor]]:
    """What layers make of one x; where all are known, they read it together."""
    known = [found for layer in layers if (found := _parts(layer)) is not None]
    if len(known) < len(layers):
        return lambda x: [layer(x) for layer in layers]
    frozen, factors = zip(*known, strict=True)
    return lambda x: fused.layers(x.to(frozen[0].weight.dtype), frozen, factors, kernels)


def _parts(module: Any) -> tuple[fused.Frozen, tuple[Tensor, Tensor]] | None:
    """What a frozen linear layer consists of, if it takes part as it is or with one plain adapter.

    PEFT types its layer's parts as modules, whatever they are.
    """
    if isinstance(module, LowRankLinear):
        layer: Any = module
        base = layer.get_base_layer()
        if layer.merged:
            return None
        return _parts(base) if layer.disable_adapters else _low_rank_parts(layer, base)
    if type(module) is not nn.Linear or not _frozen(module):
        return None
    weight = module.weight
    none = weight.new_empty(0, weight.shape[1]), weight.new_empty(weight.shape[0], 0)
    return fused.Frozen(weight, module.bias, 1.0), none


def _low_rank_parts(layer: Any, base: Any) -> tuple[fused.Frozen, tuple[Tensor, Tensor]] | None:
    if type(base) is not nn.Linear or not _frozen(base) or len(layer.active_adapters) != 1:
        return None
    (name,) = layer.active_adapters
    if name not in layer.lora_A:
        return None
    down, up, scale = layer.lora_A[name], layer.lora_B[name], layer.scaling[name]
    plain = isinstance(layer.lora_dropout[name], nn.Identity) and not layer.lora_variant
    if not plain or down.bias is not None or up.bias is not None:
        return None
    return fused.Frozen(base.weight, base.bias, scale), (down.weight, up.weight)


def _frozen(module: nn.Module) -> bool:
    return not any(p.requires_grad for p in module.parameters(recurse=False))
