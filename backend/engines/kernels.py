"""The functions of `kernels.c`, compiled when an engine starts, where there is a C compiler.

One thread, CPU, fp32 and bf16 only. Knows nothing of layers and models.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainer.compiling import compiled_once

MAX_ROWS = 64  # of a product; beyond, the libraries' are as fast

PRODUCTS = ("q", "k", "v", "o", "gate", "up", "down")


class Layer(ctypes.Structure):
    """`layer` of `kernels.c`: where a decoder layer's weights stand, and its sizes."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("first_norm", "second_norm")),
        *((name, ctypes.c_void_p) for name in PRODUCTS),
        *((f"{name}_bias", ctypes.c_void_p) for name in PRODUCTS),
        *((name, ctypes.c_double) for name in ("first_eps", "second_eps", "scale")),
        *((name, ctypes.c_long) for name in ("hidden", "inner", "groups", "heads", "size")),
    ]


@dataclass(frozen=True, slots=True)
class Kernels:
    """Functions on addresses of numbers, for fp32 and for bf16.

    Attributes:
        linear, linear_bf16: (x, w, b, y, rows, in, out): x (rows, in) times w (out, in),
            transposed, plus b (out) or none, is written to y (rows, out).
        rms_norm, rms_norm_bf16: (x, w, y, eps, rows, size): each row of x (rows, size) over its
            root mean square, times w (size,), is written to y (rows, size).
        project, project_bf16: (layer, x, cos, sin, q, k, v, room, rows): the first part of a layer
            for one token in each row, up to its queries, keys and values, see `kernels.c`.
        finish, finish_bf16: (layer, x, q, k, v, seen, y, room, scores, rows, tokens, per_row,
            per_group): the second part, from attention to its output.
    """

    linear: Callable[[int, int, int | None, int, int, int, int], None]
    linear_bf16: Callable[[int, int, int | None, int, int, int, int], None]
    rms_norm: Callable[[int, int, int, float, int, int], None]
    rms_norm_bf16: Callable[[int, int, int, float, int, int], None]
    project: Callable[..., None]
    project_bf16: Callable[..., None]
    finish: Callable[..., None]
    finish_bf16: Callable[..., None]


def _functions(made: ctypes.CDLL) -> Kernels:
    linears = made.attune_linear, made.attune_linear_bf16
    norms = made.attune_rms_norm, made.attune_rms_norm_bf16
    projects = made.attune_project, made.attune_project_bf16
    finishes = made.attune_finish, made.attune_finish_bf16
    address, size = ctypes.c_void_p, ctypes.c_long
    layer = ctypes.POINTER(Layer)
    for linear in linears:
        linear.argtypes, linear.restype = [*[address] * 4, *[size] * 3], None
    for norm in norms:
        norm.argtypes, norm.restype = [*[address] * 3, ctypes.c_double, size, size], None
    for project in projects:
        project.argtypes, project.restype = [layer, *[address] * 7, size], None
    for finish in finishes:
        finish.argtypes, finish.restype = [layer, *[address] * 8, *[size] * 4], None
    return Kernels(*linears, *norms, *projects, *finishes)


compiled_kernels = compiled_once(Path(__file__).with_suffix(".c"), _functions)
