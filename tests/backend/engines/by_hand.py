"""What `kernels.c` promises, in torch: for machines without a compiler, and to compare with."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from backend.engines.kernels import Kernels


def at(address: int, *shape: int) -> Tensor:
    """The fp32 numbers at an address."""
    floats = (ctypes.c_float * math.prod(shape)).from_address(address)
    return torch.frombuffer(floats, dtype=torch.float32).view(shape)


def halves_at(address: int, *shape: int) -> Tensor:
    """The bf16 numbers at an address."""
    halves = (ctypes.c_uint16 * math.prod(shape)).from_address(address)
    return torch.frombuffer(halves, dtype=torch.bfloat16).view(shape)


def linear_by_hand(*told: Any, read: Callable[..., Tensor] = at) -> None:
    x, w, b, y, _, rows, inside, out = told
    sums = read(x, rows, inside).float() @ read(w, out, inside).float().T
    read(y, rows, out).copy_(sums if b is None else sums + read(b, out).float())


def rms_norm_by_hand(*told: Any, read: Callable[..., Tensor] = at) -> None:
    x, w, y, eps, rows, size = told
    inputs, weight = read(x, rows, size), read(w, size)
    rounded = (inputs / (inputs.square().mean(-1, keepdim=True) + eps).sqrt()).to(inputs.dtype)
    read(y, rows, size).copy_(weight * rounded)


def project_by_hand(*told: int, read: Callable[..., Tensor] = at) -> None:
    x, wq, wk, wv, cos, sin, q, k, v, _, rows, inside, heads, groups, size = told
    inputs, angles = read(x, rows, inside), (read(cos, rows, 1, size), read(sin, rows, 1, size))
    for weight, made, count in ((wq, q, heads), (wk, k, groups), (wv, v, groups)):
        product = (inputs @ read(weight, count * size, inside).T).view(rows, count, size)
        read(made, rows, count, size).copy_(product if made == v else turned(product, *angles))


def turned(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embeddings of (rows, heads, size) by angles (rows, 1, size)."""
    a, b = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat([-b, a], dim=-1) * sin


def attend_by_hand(*told: Any, read: Callable[..., Tensor] = at) -> None:
    q, k, v, seen, y, _, scale, rows, groups, heads, size, tokens, per_row, per_group = told
    last = (rows - 1) * per_row + (groups - 1) * per_group + tokens * size
    strides = (per_row, per_group, size, 1)
    keys, values = (
        read(place, last).as_strided((rows, groups, tokens, size), strides) for place in (k, v)
    )
    scores = read(q, rows, groups, heads, size).float() @ keys.float().mT * scale
    if seen is not None:
        mask = torch.frombuffer(
            (ctypes.c_bool * (rows * tokens)).from_address(seen), dtype=torch.bool
        )
        scores = scores.where(mask.view(rows, 1, 1, tokens), -torch.inf)
    read(y, rows, groups, heads, size).copy_(scores.softmax(-1) @ values.float())


BY_HAND = Kernels(
    *(
        partial(function, read=read)
        for function in (linear_by_hand, rms_norm_by_hand, project_by_hand, attend_by_hand)
        for read in (at, halves_at)
    )
)
