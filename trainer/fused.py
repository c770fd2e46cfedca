"""The kernels as differentiable functions, and the low-rank product with little kept.

What a backward pass needs is kept in the type it is computed in. Knows nothing of modules.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.kernels import Kernels, Plan

_Context = torch.autograd.function.FunctionCtx


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


class _LowRank(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch's calling convention
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            flat = x.reshape(-1, x.shape[-1])
            low_down, low_up = down.to(weight.dtype), up.to(weight.dtype)
            inner = (flat @ low_down.T).mul_(scale)
            made = torch.nn.functional.linear(flat, weight, bias).addmm_(inner, low_up.T)
        ctx.save_for_backward(flat, weight, low_down, low_up, inner)
        ctx.with_it = scale, x.shape, down.dtype
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        flat, weight, low_down, low_up, inner = ctx.saved_tensors
        scale, shape, wide = ctx.with_it
        d_x = d_down = d_up = None
        grad = grad.reshape(-1, grad.shape[-1])
        of_inner = (grad @ low_up).mul_(scale)
        if ctx.needs_input_grad[0]:
            d_x = (grad @ weight).addmm_(of_inner, low_down).view(shape)
        if ctx.needs_input_grad[3]:
            d_down = (of_inner.T @ flat).to(wide)
        if ctx.needs_input_grad[4]:
            d_up = (inner.T @ grad).T.to(wide)
        return d_x, None, None, d_down, d_up, None


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


def low_rank(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    factors: tuple[Tensor, Tensor],
    scale: float,
) -> Tensor:
    """x Wᵀ + b + scale · x Aᵀ Bᵀ, x (…, H) as W's type; W and b get no gradient.

    Args:
        factors: A (r, H) and B (out, r), wider perhaps than W; they are rounded to it.
    """
    made: Tensor = _LowRank.apply(x, weight, bias, *factors, scale)  # type: ignore[no-untyped-call]
    return made
