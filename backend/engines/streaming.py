"""Linear layers that read their weight once, at the speed of the memory, for up to eight rows.

A product of a few rows with a large matrix is bound by reading the matrix. The libraries' products
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
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

MAX_ROWS = 8  # beyond, the libraries' products are as fast

# (x, w, y, rows, in, out): x (rows, in) times w (out, in), transposed, is written to y (rows, out).
Product = Callable[[int, int, int, int, int, int], None]

_SOURCE = Path(__file__).with_suffix(".c")
_COMPILERS = ("cc", "gcc", "clang")
_OPTIONS = ("-O2", "-march=native", "-shared", "-fPIC")
_COMPILING_S = 60.0

logger = logging.getLogger(__name__)


@cache
def compiled_product() -> Product | None:
    """The compiled product; None without a compiler that can make it."""
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    return None if compiler is None else build(compiler)


def build(compiler: str) -> Product | None:
    """The product made by this compiler; None if it cannot."""
    with tempfile.TemporaryDirectory(prefix="attune-") as folder:
        library = Path(folder) / "streaming.so"
        command = [compiler, *_OPTIONS, "-o", str(library), str(_SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_COMPILING_S)
            product = ctypes.CDLL(str(library)).attune_linear
        except (OSError, subprocess.SubprocessError, AttributeError) as error:
            logger.info("no streamed products: %s", error)
            return None
    product.argtypes = [*[ctypes.c_void_p] * 3, *[ctypes.c_long] * 3]
    product.restype = None
    made: Product = product
    return made


class StreamedLinear(nn.Linear):
    """Stands for a linear layer and shares its weight and bias, which may be exchanged."""

    def __init__(self, dense: nn.Linear, product: Product) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.weight, self.bias = dense.weight, dense.bias
        self._product = product

    def forward(self, input: Tensor) -> Tensor:
        """`input` (…, in_features) → (…, out_features)."""
        # A strided input, as the head gets it, would make `linear` copy the weight for each row.
        flat = input.contiguous()
        rows = input.numel() // self.in_features
        if rows > MAX_ROWS:
            return nn.functional.linear(flat, self.weight, self.bias)
        made = torch.empty(*input.shape[:-1], self.out_features)
        self._product(
            flat.data_ptr(),
            self.weight.data_ptr(),
            made.data_ptr(),
            rows,
            self.in_features,
            self.out_features,
        )
        return made if self.bias is None else made.add_(self.bias)


def can_stream(model: PreTrainedModel, *, rows: int, threads: int) -> bool:
    """Whether streamed products suit this model decoding so many rows on so many threads."""
    return (
        model.device.type == "cpu"
        and model.dtype == torch.float32
        and rows <= MAX_ROWS
        and (threads or torch.get_num_threads()) == 1
    )


def stream_linears(model: PreTrainedModel, product: Product) -> None:
    """Replace every linear layer; `unstream_linears` undoes it. No weight is copied."""
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module.weight.is_contiguous():
            model.set_submodule(name, StreamedLinear(module, product))


def unstream_linears(model: PreTrainedModel) -> None:
    """Put plain linear layers, with the weights in place now, where `stream_linears` was."""
    for name, module in list(model.named_modules()):
        if isinstance(module, StreamedLinear):
            dense = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            dense.weight, dense.bias = module.weight, module.bias
            model.set_submodule(name, dense)
