"""The kernels as differentiable functions.

What a backward pass needs is kept in the type it is computed in. Knows nothing of modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.kernels import Kernels, Plan

_Context = torch.autograd.function.FunctionCtx


@dataclass(frozen=True, slots=True)
class Frozen:
    """What gets no gradient in a linear layer: W (out, H), b (out,), the scale of its factors."""

    weight: Tensor
    bias: Tensor | None
    scale: float


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, kernels: Kernels) -> Tensor:
        x = x.contiguous()
        made, scales = kernels.norm(x, weight, eps)
        ctx.save_for_backward(x, weight, scales)
        ctx.kernels = kernels
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.kernels.norm_back(grad.contiguous(), *ctx.saved_tensors), None, None, None


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, by: Tensor, kernels: Kernels) -> Tensor:
        x, by = x.contiguous(), by.contiguous()
        ctx.save_for_backward(x, by)
        ctx.kernels = kernels
        return kernels.gate(x, by)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        return *ctx.kernels.gate_back(grad.contiguous(), *ctx.saved_tensors), None


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, heads: Tensor, cos: Tensor, sin: Tensor, kernels: Kernels) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.kernels = kernels
        return kernels.turn(heads, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.kernels.turn(grad, *ctx.saved_tensors, back=True), None, None, None


class _Tree(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch's calling convention
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        plan: Plan,
        scale: float,
        kernels: Kernels,
    ) -> Tensor:
        made, sums = kernels.tree(query, key, value, plan, scale)
        ctx.save_for_backward(query, key, value, sums)
        ctx.with_it = kernels, plan, scale
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sums = ctx.saved_tensors
        kernels, plan, scale = ctx.with_it
        slopes = kernels.tree_back(grad, (query, key, value), sums, plan, scale)
        return *slopes, None, None, None


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, frozen: Sequence[Frozen], kernels: Kernels, *factors: Tensor
    ) -> Any:
        downs, ups = factors[: len(frozen)], factors[len(frozen) :]
        flat = x.reshape(-1, x.shape[-1])
        with torch.autocast("cpu", enabled=False):
            low_down = torch.cat(downs).to(flat.dtype)
            low_ups = [(up * one.scale).to(flat.dtype) for up, one in zip(ups, frozen, strict=True)]
            inner = kernels.products([(flat, low_down.T)])
            made = [
                kernels.products([(flat, one.weight.T), (part, up.T)], one.bias)
                for one, up, part in zip(frozen, low_ups, _parts(inner, low_ups), strict=True)
            ]
        learning = any(ctx.needs_input_grad[3:])
        # Only factors' gradients need what was read.
        ctx.save_for_backward(*(flat, inner) if learning else (None, None), low_down, *low_ups)
        ctx.with_it = frozen, kernels, x.shape, [factor.dtype for factor in factors]
        return tuple(one.view(*x.shape[:-1], one.shape[1]) for one in made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        flat, inner, low_down, *low_ups = ctx.saved_tensors
        frozen, kernels, shape, types = ctx.with_it
        rows = [grad.reshape(-1, grad.shape[-1]) for grad in grads]
        of_parts = [kernels.products([both]) for both in zip(rows, low_ups, strict=True)]
        of_inner = torch.cat(of_parts, 1)
        d_x = None
        if ctx.needs_input_grad[0]:
            whole = [(grad, one.weight) for grad, one in zip(rows, frozen, strict=True)]
            d_x = kernels.products([*whole, (of_inner, low_down)]).view(shape)
        d_factors: list[Tensor | None] = [None] * (2 * len(frozen))
        if any(ctx.needs_input_grad[3:]):
            d_downs = torch.split(of_inner.T @ flat, [up.shape[1] for up in low_ups])
            d_factors = [grad.to(type_) for grad, type_ in zip(d_downs, types, strict=False)]
            for grad, one, part, type_ in zip(
                rows, frozen, _parts(inner, low_ups), types[len(frozen) :], strict=True
            ):
                d_factors.append((part.T @ grad).T.to(type_) * one.scale)
        return d_x, None, None, *d_factors


def _parts(inner: Tensor, ups: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The columns of each product's rank."""
    return torch.split(inner, [up.shape[1] for up in ups], 1)


def norm(x: Tensor, weight: Tensor, eps: float, kernels: Kernels) -> Tensor:
    """x / rms(x) · weight in the type of `weight`, which gets no gradient; x (…, H) is fp32."""
    made: Tensor = _Norm.apply(x, weight, eps, kernels)  # type: ignore[no-untyped-call]
    return made


def gate(x: Tensor, by: Tensor, kernels: Kernels) -> Tensor:
    """silu(x) · by."""
    made: Tensor = _Gate.apply(x, by, kernels)  # type: ignore[no-untyped-call]
    return made


def turn(heads: Tensor, cos: Tensor, sin: Tensor, kernels: Kernels) -> Tensor:
    """Rotary embedding of (N, heads, D), without a gap in the last dimension, by (N, D) fp32."""
    made: Tensor = _Turn.apply(heads, cos, sin, kernels)  # type: ignore[no-untyped-call]
    return made


def tree(
    heads: tuple[Tensor, Tensor, Tensor], plan: Plan, scale: float, kernels: Kernels
) -> Tensor:
    """Attention of query (N, heads, D) over key and value (N, groups, D), see `Kernels.tree`."""
    made: Tensor = _Tree.apply(*heads, plan, scale, kernels)  # type: ignore[no-untyped-call]
    return made


def layers(
    x: Tensor,
    frozen: Sequence[Frozen],
    factors: Sequence[tuple[Tensor, Tensor]],
    kernels: Kernels,
) -> tuple[Tensor, ...]:
    """x Wᵀ + b + scale · x Aᵀ Bᵀ by several layers, which read x, (…, H) as W's type, together.

    Args:
        factors: A (r, H) and B (out, r) of each, wider perhaps than W; they are rounded to it.
            A layer without low-rank factors has some of rank 0.
    """
    downs, ups = zip(*factors, strict=True)
    made: tuple[Tensor, ...] = _Layers.apply(x, frozen, kernels, *downs, *ups)  # type: ignore[no-untyped-call]
    return made
