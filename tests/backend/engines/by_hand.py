"""What `kernels.c` promises, in torch: for machines without a compiler, and to compare with."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from backend.engines.kernels import Kernels, Layer


def at(address: int, *shape: int) -> Tensor:
    """The fp32 numbers at an address."""
    floats = (ctypes.c_float * math.prod(shape)).from_address(address)
    return torch.frombuffer(floats, dtype=torch.float32).view(shape)


def halves_at(address: int, *shape: int) -> Tensor:
    """The bf16 numbers at an address."""
    halves = (ctypes.c_uint16 * math.prod(shape)).from_address(address)
    return torch.frombuffer(halves, dtype=torch.bfloat16).view(shape)


def linear_by_hand(*told: Any, read: Callable[..., Tensor] = at) -> None:
    x, w, b, y, rows, inside, out = told
    sums = read(x, rows, inside).float() @ read(w, out, inside).float().T
    read(y, rows, out).copy_(sums if b is None else sums + read(b, out).float())


def rms_norm_by_hand(*told: Any, read: Callable[..., Tensor] = at) -> None:
    x, w, y, eps, rows, size = told
    inputs, weight = read(x, rows, size), read(w, size)
    rounded = (inputs / (inputs.square().mean(-1, keepdim=True) + eps).sqrt()).to(inputs.dtype)
    read(y, rows, size).copy_(weight * rounded)


class Weights:
    """A layer's, read where `told` says they stand."""

    def __init__(self, told: Any, read: Callable[..., Tensor]) -> None:
        self.told: Layer = told.contents
        self._read = read

    def norm(self, x: Tensor, name: str) -> Tensor:
        eps = getattr(self.told, f"{name}_eps")
        weight = self._read(getattr(self.told, f"{name}_norm"), self.told.hidden)
        return weight * (x / (x.square().mean(-1, keepdim=True) + eps).sqrt()).to(x.dtype)

    def product(self, x: Tensor, name: str, out: int) -> Tensor:
        bias = getattr(self.told, f"{name}_bias")
        weight = self._read(getattr(self.told, name), out, x.shape[-1])
        return nn.functional.linear(x, weight, None if bias is None else self._read(bias, out))


def project_by_hand(*told: Any, read: Callable[..., Tensor] = at) -> None:
    layer, x, cos, sin, q, k, v, _, rows = told
    weights = Weights(layer, read)
    groups, size = weights.told.groups, weights.told.size
    normed = weights.norm(read(x, rows, weights.told.hidden), "first")
    angles = read(cos, rows, 1, size), read(sin, rows, 1, size)
    for name, made, count in (
        ("q", q, groups * weights.told.heads),
        ("k", k, groups),
        ("v", v, groups),
    ):
        product = weights.product(normed, name, count * size).view(rows, count, size)
        read(made, rows, count, size).copy_(product if made == v else turned(product, *angles))


def turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embeddings of (rows, heads, size) by angles (rows, 1, size)."""
    a, b = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-b, a], dim=-1) * sin


def finish_by_hand(*told: Any, read: Callable[..., Tensor] = at) -> None:
    layer, x, q, k, v, seen, y, _, _, rows, tokens, per_row, per_group = told
    weights = Weights(layer, read)
    groups, heads, size = weights.told.groups, weights.told.heads, weights.told.size
    last = (rows - 1) * per_row + (groups - 1) * per_group + tokens * size
    strides = (per_row, per_group, size, 1)
    keys, values = (
        read(place, last).as_strided((rows, groups, tokens, size), strides) for place in (k, v)
    )
    scores = read(q, rows, groups, heads, size).float() @ keys.float().mT * weights.told.scale
    if seen is not None:
        mask = torch.frombuffer(
            (ctypes.c_bool * (rows * tokens)).from_address(seen), dtype=torch.bool
        )
        scores = scores.where(mask.view(rows, 1, 1, tokens), -torch.inf)
    attended = (scores.softmax(-1) @ values.float()).to(keys.dtype).reshape(rows, -1)
    hidden, inner = weights.told.hidden, weights.told.inner
    added = read(x, rows, hidden) + weights.product(attended, "o", hidden)
    normed = weights.norm(added, "second")
    gate, up = (weights.product(normed, name, inner) for name in ("gate", "up"))
    down = weights.product(nn.functional.silu(gate) * up, "down", hidden)
    read(y, rows, hidden).copy_(added + down)


BY_HAND = Kernels(
    *(
        partial(function, read=read)
        for function in (linear_by_hand, rms_norm_by_hand, project_by_hand, finish_by_hand)
        for read in (at, halves_at)
    )
)
