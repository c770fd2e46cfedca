"""Linear layers that read their weight once, at the speed of the memory; norms in one call.

A product of few rows with a large matrix is bound by reading the matrix. The libraries' products
reach a third to a half of what a core can read; `streaming.c` nearly all of it for one or two rows.
It is compiled when an engine starts, where there is a C compiler; without one `packing.py` takes
its place. One thread, CPU, fp32 and bf16 only. Weights stay plain tensors. Knows nothing of
versions and requests.
"""

from __future__ import annotations

import ctypes
import logging
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

MAX_ROWS = 16  # beyond, the libraries' products are as fast

_SOURCE = Path(__file__).with_suffix(".c")
_COMPILERS = ("cc", "gcc", "clang")
_OPTIONS = ("-O2", "-march=native", "-shared", "-fPIC", "-fno-math-errno")
_COMPILING_S = 60.0
_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2**-7}  # relative, of what is the same
_compiling = threading.Lock()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kernels:
    """Functions on addresses of numbers, for fp32 and for bf16.

    Attributes:
        linear, linear_bf16: (x, w, y, room, rows, in, out): x (rows, in) times w (out, in),
            transposed, is written to y (rows, out), in fp32; room has place for 16 (in + 1) numbers
            of x's type.
        rms_norm, rms_norm_bf16: (x, w, y, eps, rows, size): each row of x (rows, size) over its
            root mean square, times w (size,), is written to y (rows, size).
    """

    linear: Callable[[int, int, int, int, int, int, int], None]
    linear_bf16: Callable[[int, int, int, int, int, int, int], None]
    rms_norm: Callable[[int, int, int, float, int, int], None]
    rms_norm_bf16: Callable[[int, int, int, float, int, int], None]


def compiled_kernels() -> Kernels | None:
    """The compiled functions; None without a compiler that can make them.

    The first caller has them compiled, whoever comes meanwhile waits.
    """
    with _compiling:
        return _compiled()


@cache
def _compiled() -> Kernels | None:
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    return None if compiler is None else build(compiler)


def build(compiler: str) -> Kernels | None:
    """The functions made by this compiler; None if it cannot."""
    with tempfile.TemporaryDirectory(prefix="attune-") as folder:
        library = Path(folder) / "streaming.so"
        command = [compiler, *_OPTIONS, "-o", str(library), str(_SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_COMPILING_S)
            made = ctypes.CDLL(str(library))
            linears = made.attune_linear, made.attune_linear_bf16
            norms = made.attune_rms_norm, made.attune_rms_norm_bf16
        except (OSError, subprocess.SubprocessError, AttributeError) as error:
            logger.info("no streamed products: %s", error)
            return None
    address, size = ctypes.c_void_p, ctypes.c_long
    for linear in linears:
        linear.argtypes, linear.restype = [*[address] * 4, *[size] * 3], None
    for norm in norms:
        norm.argtypes, norm.restype = [*[address] * 3, ctypes.c_double, size, size], None
    return Kernels(*linears, *norms)


class StreamedLinear(nn.Linear):
    """Stands for a linear layer and shares its weight and bias, which may be exchanged."""

    def __init__(self, dense: nn.Linear, kernels: Kernels) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.weight, self.bias = dense.weight, dense.bias
        low = self.weight.dtype == torch.bfloat16
        self._product = kernels.linear_bf16 if low else kernels.linear

    def forward(self, input: Tensor) -> Tensor:
        """`input` (…, in_features) → (…, out_features)."""
        # A strided input, as the head gets it, would make `linear` copy the weight for each row.
        flat = input.contiguous()
        rows = input.numel() // self.in_features
        # Under autocast inputs may be wider than the weights.
        if rows > MAX_ROWS or input.dtype != self.weight.dtype:
            return nn.functional.linear(flat, self.weight, self.bias)
        made = torch.empty(*input.shape[:-1], self.out_features)
        room = flat.new_empty(MAX_ROWS * (self.in_features + 1))
        self._product(
            flat.data_ptr(),
            self.weight.data_ptr(),
            made.data_ptr(),
            room.data_ptr(),
            rows,
            self.in_features,
            self.out_features,
        )
        if self.bias is not None:
            made.add_(self.bias)
        return made.to(input.dtype)


class StreamedNorm(nn.Module):
    """Stands for a module that is a plain RMS norm, and shares its weight."""

    def __init__(
        self, plain: nn.Module, weight: nn.Parameter, eps: float, kernels: Kernels
    ) -> None:
        super().__init__()
        self.weight = weight
        self.plain = (plain,)  # in a tuple, so that it is no submodule
        self._eps = eps
        self._size = len(weight)
        low = weight.dtype == torch.bfloat16
        self._norm = kernels.rms_norm_bf16 if low else kernels.rms_norm

    def forward(self, input: Tensor) -> Tensor:
        """`input` (…, size) → the same shape."""
        if input.dtype != self.weight.dtype:
            made: Tensor = self.plain[0](input)
            return made
        flat = input.contiguous()
        made = torch.empty_like(flat)
        rows = flat.numel() // self._size
        self._norm(
            flat.data_ptr(), self.weight.data_ptr(), made.data_ptr(), self._eps, rows, self._size
        )
        return made


def streamed_norm(module: nn.Module, kernels: Kernels) -> StreamedNorm | None:
    """A stand-in for `module` if it does what a plain RMS norm does (architectures vary it)."""
    eps = getattr(module, "variance_epsilon", None)
    weight = getattr(module, "weight", None)
    if not isinstance(eps, float) or not isinstance(weight, nn.Parameter) or weight.dim() != 1:
        return None
    streamed = StreamedNorm(module, weight, eps, kernels)
    trial = torch.linspace(-2, 3, 2 * len(weight)).view(2, -1).to(weight.dtype)
    same = torch.allclose(streamed(trial), module(trial), rtol=_ROUNDING[weight.dtype])
    return streamed if same else None


def can_stream(model: PreTrainedModel, *, rows: int, threads: int) -> bool:
    """Whether streamed products suit this model decoding so many rows on so many threads."""
    return (
        model.device.type == "cpu"
        and model.dtype in _ROUNDING
        and rows <= MAX_ROWS
        and (threads or torch.get_num_threads()) == 1
    )


@torch.no_grad()
def stream(model: PreTrainedModel, kernels: Kernels) -> None:
    """Replace linear layers and plain RMS norms; `unstream` undoes it. No weight is copied."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module.weight.is_contiguous():
            model.set_submodule(name, StreamedLinear(module, kernels))
        elif (norm := streamed_norm(module, kernels)) is not None:
            model.set_submodule(name, norm)


def unstream(model: PreTrainedModel) -> None:
    """Put plain layers, with the weights in place now, where `stream` replaced them."""
    for name, module in list(model.named_modules()):
        if isinstance(module, StreamedNorm):
            model.set_submodule(name, module.plain[0])
        if isinstance(module, StreamedLinear):
            dense = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            dense.weight, dense.bias = module.weight, module.bias
            model.set_submodule(name, dense)
