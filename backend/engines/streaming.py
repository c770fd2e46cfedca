"""Linear layers that read their weight once, at the speed of the memory; norms in one call.

A product of few rows with a large matrix is bound by reading the matrix. The libraries' products
reach a third to a half of what a core can read; `kernels.c` nearly all of it for one or two rows.
Where it cannot be compiled `packing.py` takes its place. One thread, CPU, fp32 and bf16 only.
Weights stay plain tensors. Knows nothing of versions and requests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from backend.engines.kernels import MAX_ROWS, Kernels
from backend.engines.streamed_layer import StreamedLayer, streamed_layers

_ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 2**-7}  # relative, of what is the same


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
        weight = self.weight
        rows = input.numel() // self.in_features
        # Under autocast inputs may be wider than the weights.
        if rows > MAX_ROWS or input.dtype != weight.dtype:
            return nn.functional.linear(flat, weight, self.bias)
        made = flat.new_empty(*input.shape[:-1], self.out_features)
        self._product(
            flat.data_ptr(),
            weight.data_ptr(),
            None if self.bias is None else self.bias.data_ptr(),
            made.data_ptr(),
            rows,
            self.in_features,
            self.out_features,
        )
        return made


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
    """Replace decoder layers, linear layers and RMS norms; `unstream` undoes it. Copies no weight.

    Only what does the same is replaced: architectures vary norms and layers.
    """
    layers = streamed_layers(model, kernels)
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear and module.weight.is_contiguous():
            model.set_submodule(name, StreamedLinear(module, kernels))
        elif (norm := streamed_norm(module, kernels)) is not None:
            model.set_submodule(name, norm)
    for name, layer in layers.items():
        model.set_submodule(name, layer)


def unstream(model: PreTrainedModel) -> None:
    """Put plain layers, with the weights in place now, where `stream` replaced them."""
    for name, module in list(model.named_modules()):
        if isinstance(module, StreamedLayer | StreamedNorm):
            model.set_submodule(name, module.plain[0])
    for name, module in list(model.named_modules()):
        if isinstance(module, StreamedLinear):
            dense = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            dense.weight, dense.bias = module.weight, module.bias
            model.set_submodule(name, dense)
