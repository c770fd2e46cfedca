"""One model, several sets of weights: the base model's and each served version's, merged.

Merged weights cost nothing at decode time (LoRA applied beside them costs a third of it), and
going over from one set to another is an assignment of pointers. On CUDA it is also a copy, to one
place that all merged sets share in turn: a captured graph keeps the addresses it was captured with,
so the graphs outlive a version, and nothing has to be captured anew after a swap. Knows nothing of
requests.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from backend.engines.kernels import compiled_kernels
from backend.engines.packing import PackedLinear, can_pack, pack, pack_linears, unpack_linears
from backend.engines.streaming import can_stream, stream, unstream
from trainer.artifacts import ArtifactDamaged, VersionTensors

Weights = Mapping[str, Tensor]  # module name → its weight

_ADAPTER_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.weight")


class WeightSets:
    """The model's weights under names, and the one set that is in place.

    `merge` may be called from any thread at any time: it reads base tensors, which never change.
    `use` and `restore` belong to the thread that runs the model.
    """

    def __init__(self, model: PreTrainedModel, *, rows: int, threads: int) -> None:
        """Take the model's linear layers over, in the form that suits batches of `rows` rows.

        Args:
            threads: CPU threads that will run the model; 0: torch's choice.
        """
        self._model = model
        self._rows = rows
        streams = can_stream(model, rows=rows, threads=threads)
        kernels = compiled_kernels() if streams else None
        if kernels is not None:
            stream(model, kernels)
        elif can_pack(model):
            pack_linears(model, rows)
        self._linears = {
            name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
        }
        self._base = {name: _weight(module) for name, module in self._linears.items()}
        self.base: Weights = {}
        self._in_place: Weights = self.base
        self._stays = _stays(model)
        self._places: dict[str, Tensor] = {}

    @torch.no_grad()
    def merge(self, version: VersionTensors) -> Weights:
        """W + scale·B·A for every target of the version's adapter (Hu et al., arXiv 2106.09685).

        Raises:
            ArtifactDamaged: the adapter does not fit the model, or holds a non-finite number.
        """
        merged: dict[str, Tensor] = {}
        for name, (a, b) in factors(version.adapter).items():
            base = self._base.get(name)
            if base is None or base.shape != (b.shape[0], a.shape[1]) or a.shape[0] != b.shape[1]:
                raise ArtifactDamaged(f"the adapter does not fit the base model at {name}")
            delta = low_rank(a, b, version.lora_scale, base.device)
            if not bool(delta.isfinite().all()):
                raise ArtifactDamaged(f"the adapter holds a number that is not finite at {name}")
            if base.is_mkldnn:
                merged[name] = pack(delta.add_(base.to_dense()), self._rows)
            else:
                merged[name] = delta.add_(base).to(base.dtype)
        return merged

    def use(self, weights: Weights) -> bool:
        """Put `weights` in place, the base model's where they name none; False if they were."""
        if weights is self._in_place:
            return False
        placed = self._placed(weights) if self._stays else weights
        for name in self._in_place.keys() | weights.keys():
            _put(self._linears[name], placed.get(name, self._base[name]))
        self._in_place = weights
        return True

    def _placed(self, weights: Weights) -> Weights:
        """Copies of `weights` where every set before them was copied to."""
        with torch.inference_mode(False):  # as parameters are, whoever reads them
            for name in weights.keys() - self._places.keys():
                self._places[name] = torch.empty_like(weights[name])
        placed = {name: self._places[name] for name in weights}
        if placed:
            torch._foreach_copy_(list(placed.values()), list(weights.values()))
        return placed

    def restore(self) -> None:
        """Give the model back as it was. No other method may be called afterwards."""
        self.use(self.base)
        unpack_linears(self._model)
        unstream(self._model)


def _stays(model: PreTrainedModel) -> bool:
    """Whether merged weights are to stand in the same place of memory whichever they are."""
    return model.device.type == "cuda"


def _weight(module: nn.Linear) -> Tensor:
    return module.packed if isinstance(module, PackedLinear) else module.weight.data


def _put(module: nn.Linear, weight: Tensor) -> None:
    if isinstance(module, PackedLinear):
        module.packed = weight
    else:
        module.weight.data = weight


def low_rank(a: Tensor, b: Tensor, scale: float, device: torch.device) -> Tensor:
    """scale·B·A, (out, in) in the factors' type: what an adapter adds to a weight."""
    return scale * (b.to(device) @ a.to(device))


def factors(adapter: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Module name → (A, B), from PEFT's checkpoint names."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in adapter.items():
        match = _ADAPTER_NAME.fullmatch(key)
        if match is None:
            raise ArtifactDamaged(f"the adapter holds something else than LoRA weights: {key}")
        found.setdefault(match["module"], {})[match["factor"]] = tensor
    try:
        return {name: (pair["A"], pair["B"]) for name, pair in found.items()}
    except KeyError as missing:
        raise ArtifactDamaged(f"the adapter misses a factor {missing}") from None
