"""The functions of `kernels.c`, compiled when an engine starts, where there is a C compiler.

One thread, CPU, fp32 and bf16 only. Knows nothing of layers and models.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from trainer.compiling import compiled, compiler

MAX_ROWS = 16  # of a product; beyond, the libraries' are as fast

_SOURCE = Path(__file__).with_suffix(".c")
_compiling = threading.Lock()


@dataclass(frozen=True, slots=True)
class Kernels:
    """Functions on addresses of numbers, for fp32 and for bf16.

    Attributes:
        linear, linear_bf16: (x, w, b, y, room, rows, in, out): x (rows, in) times w (out, in),
            transposed, plus b (out) or none, is written to y (rows, out); room: 16 (in + 1 + out)
            numbers of fp32, written to.
        rms_norm, rms_norm_bf16: (x, w, y, eps, rows, size): each row of x (rows, size) over its
            root mean square, times w (size,), is written to y (rows, size).
        project, project_bf16: (x, wq, wk, wv, cos, sin, q, k, v, room, rows, in, heads, groups,
            size): queries (rows, heads, size), keys and values (rows, groups, size) of one token in
            each row, turned by cos and sin (rows, size); size a multiple of 32, room as before.
        attend, attend_bf16: (q, k, v, seen, y, room, scale, rows, groups, heads, size, tokens,
            per_row, per_group): attention of one token in each row, see `kernels.c`.
    """

    linear: Callable[[int, int, int | None, int, int, int, int, int], None]
    linear_bf16: Callable[[int, int, int | None, int, int, int, int, int], None]
    rms_norm: Callable[[int, int, int, float, int, int], None]
    rms_norm_bf16: Callable[[int, int, int, float, int, int], None]
    project: Callable[..., None]
    project_bf16: Callable[..., None]
    attend: Callable[..., None]
    attend_bf16: Callable[..., None]


def compiled_kernels() -> Kernels | None:
    """The compiled functions; None without a compiler that can make them.

    The first caller has them compiled, whoever comes meanwhile waits.
    """
    with _compiling:
        return _compiled()


@cache
def _compiled() -> Kernels | None:
    found = compiler()
    return None if found is None else build(found)


def build(by: str) -> Kernels | None:
    """The functions made by this compiler; None if it cannot."""
    made = compiled(_SOURCE, by)
    if made is None:
        return None
    linears = made.attune_linear, made.attune_linear_bf16
    norms = made.attune_rms_norm, made.attune_rms_norm_bf16
    projects = made.attune_project, made.attune_project_bf16
    attends = made.attune_attend, made.attune_attend_bf16
    address, size = ctypes.c_void_p, ctypes.c_long
    for linear in linears:
        linear.argtypes, linear.restype = [*[address] * 5, *[size] * 3], None
    for norm in norms:
        norm.argtypes, norm.restype = [*[address] * 3, ctypes.c_double, size, size], None
    for project in projects:
        project.argtypes, project.restype = [*[address] * 10, *[size] * 5], None
    for attend in attends:
        attend.argtypes = [*[address] * 6, ctypes.c_double, *[size] * 7]
        attend.restype = None
    return Kernels(*linears, *norms, *projects, *attends)
