"""Linear layers that read their weight once, at the speed of the memory; norms in one call.

A product of few rows with a large matrix is bound by reading the matrix. The libraries' products
reach a third to a half of what a core can read; `streaming.c` nearly all of it for one or two rows.
It is compiled when an engine starts, where there is a C compiler; without one `packing.py` takes
its place. One thread, CPU and fp32 only. Weights stay plain tensors. Knows nothing of versions and
requests.
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
_FEW_ROWS = 8  # up to here rows are summed one by one, beyond side by side

_SOURCE = Path(__file__).with_suffix(".c")
_COMPILERS = ("cc", "gcc", "clang")
_OPTIONS = ("-O2", "-march=native", "-shared", "-fPIC", "-fno-math-errno")
_COMPILING_S = 60.0
_compiling = threading.Lock()

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Kernels:
    """Functions on addresses of fp32 numbers.

    Attributes:
        linear: (x, w, y, rows, in, out): x (rows, in) times w (out, in), transposed, is written to
            y (rows, out).
        linear_wide: the same of x (in, 16), the rows side by side.
        rms_norm: (x, w, y, eps, rows, size): each row of x (rows, size) over its root mean square,
            times w (size,), is written to y (rows, size).
    """

    linear: Callable[[int, int, int, int, int, int], None]
    linear_wide: Callable[[int, int, int, int, int, int], None]
    rms_norm: Callable[[int, int, int, float, int, int], None]


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
            linear, wide = made.attune_linear, made.attune_linear_wide
            rms_norm = made.attune_rms_norm
        except (OSError, subprocess.SubprocessError, AttributeError) as error:
            logger.info("no streamed products: %s", error)
            return None
    addresses, sizes = [ctypes.c_void_p] * 3, [ctypes.c_long] * 2
    linear.argtypes = wide.argtypes = [*addresses, *sizes, ctypes.c_long]
    rms_norm.argtypes = [*addresses, ctypes.c_double, *sizes]
    linear.restype = wide.restype = rms_norm.restype = None
    return Kernels(linear, wide, rms_norm)


class StreamedLinear(nn.Linear):
    """Stands for a linear layer and shares its weight and bias, which may be exchanged."""

    def __init__(self, dense: nn.Linear, kernels: Kernels) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.weight, self.bias = dense.weight, dense.bias
        self._few, self._many = kernels.linear, kernels.linear_wide

    def forward(self, input: Tensor) -> Tensor:
        """`input` (…, in_features) → (…, out_features)."""
        # A strided input, as the head gets it, would make `linear` copy the weight for each row.
        flat = input.contiguous()
        rows = input.numel() // self.in_features
        if rows > MAX_ROWS:
            return nn.functional.linear(flat, self.weight, self.bias)
        made = torch.empty(*input.shape[:-1], self.out_features)
        product = self._few
        if rows > _FEW_ROWS:
            product = self._many
            side_by_side = flat.new_zeros(self.in_features, MAX_ROWS)
            side_by_side[:, :rows] = flat.view(rows, -1).T
            flat = side_by_side
        product(
            flat.data_ptr(),
            self.weight.data_ptr(),
            made.data_ptr(),
            rows,
            self.in_features,
            self.out_features,
        )
        return made if self.bias is None else made.add_(self.bias)


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
        self._norm = kernels.rms_norm

    def forward(self, input: Tensor) -> Tensor:
        """`input` (…, size) → the same shape."""
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
    trial = torch.linspace(-2, 3, 2 * len(weight)).view(2, -1)
    return streamed if torch.allclose(streamed(trial), module(trial), rtol=1e-4) else None


def can_stream(model: PreTrainedModel, *, rows: int, threads: int) -> bool:
    """Whether streamed products suit this model decoding so many rows on so many threads."""
    return (
        model.device.type == "cpu"
        and model.dtype == torch.float32
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
