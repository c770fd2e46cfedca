"""A frozen linear layer with LoRA beside it, as one step in both directions.

    y = x Wᵀ + s · (x Aᵀ) Bᵀ        ∂x = ∂y W + s · (∂y B) A

The low-rank part is added in place to the large product, and only x, x Aᵀ and the two factors are
kept. PEFT's own form makes and reads several tensors of the output's size more.

Knows nothing of models and of what the layer is for.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch import Tensor, nn
from torch.nn import functional as F


def fuse(layer: nn.Module, name: str) -> None:
    """Let PEFT's `layer` compute its adapter `name` this way, where it is plain LoRA on a linear.

    Disabling the adapter works as before.
    """
    if isinstance(layer, PeftLinear) and type(layer.base_layer) is nn.Linear:
        layer.forward = _forward_of(layer, layer.base_layer, name)


def _forward_of(layer: PeftLinear, base: nn.Linear, name: str) -> Callable[[Tensor], Tensor]:
    down, up, scale = layer.lora_A[name], layer.lora_B[name], float(layer.scaling[name])

    def forward(x: Tensor) -> Tensor:
        if layer.disable_adapters:
            plain: Tensor = base(x)
            return plain
        made: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
            x, base.weight, base.bias, down.weight, up.weight, scale
        )
        return made

    return forward


class _LoraLinear(torch.autograd.Function):
    """Products are in the frozen weight's dtype; a gradient is in that of what it is of."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch's calling convention
        ctx: torch.autograd.function.FunctionCtx,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scale: float,
    ) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            flat = x.reshape(-1, x.shape[-1]).to(weight.dtype)
            low = F.linear(flat, down.to(weight.dtype))
            made = F.linear(flat, weight, bias)
            made.addmm_(low, up.to(weight.dtype).T, alpha=scale)
        ctx.save_for_backward(flat, low, weight, down, up)
        ctx.scale, ctx.dtype = scale, x.dtype  # type: ignore[attr-defined]
        return made.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor | None, None, None, Tensor | None, Tensor | None, None]:
        flat, low, weight, down, up = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = ctx.scale  # type: ignore[attr-defined]
        of_x, _, _, of_down, of_up, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        shape = (*grad.shape[:-1], flat.shape[-1])
        grad = grad.reshape(-1, grad.shape[-1]).to(weight.dtype)
        # Both factors laid out along the long side: skinny products are several times faster so.
        low_grad = F.linear(grad, up.T.contiguous().to(weight.dtype)).mul_(scale)
        d_x = d_down = d_up = None
        if of_x:
            d_x = (grad @ weight).addmm_(low_grad, down.to(weight.dtype))
            d_x = d_x.view(shape).to(ctx.dtype)  # type: ignore[attr-defined]
        if of_down:
            d_down = (low_grad.T @ flat).to(down.dtype)
        if of_up:
            d_up = (low.T @ grad).T.mul(scale).to(up.dtype)
        return d_x, None, None, d_down, d_up, None
