"""Linear layers in oneDNN's own layout: two to three times faster for the few rows of decoding.

With a few rows a plain fp32 product on the CPU re-orders the whole weight at every token; packed,
that is done once. Only the layout changes, so unpacking gives the same bits. CPU and fp32 only.
Knows nothing of versions and requests.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class PackedLinear(nn.Linear):
    """Stands for a linear layer; `packed` is its weight, and may be exchanged at any time."""

    def __init__(self, dense: nn.Linear, rows: int) -> None:
        """Take the weight over from `dense`, laid out for products with `rows` rows."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = dense.in_features, dense.out_features
        self.weight, self.bias = dense.weight, dense.bias
        self.packed = pack(dense.weight.data, rows)

    def forward(self, input: Tensor) -> Tensor:
        """`input` (…, in_features) → (…, out_features)."""
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            input, self.packed, self.bias, "none", [], ""
        )
        return made


def pack(weight: Tensor, rows: int) -> Tensor:
    """A dense (out, in) weight as an opaque tensor; `Tensor.to_dense` undoes it exactly."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return packed


def can_pack(model: PreTrainedModel) -> bool:
    """Whether this model's weights, and this build of torch, allow it."""
    return (
        model.device.type == "cpu"
        and model.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )


def pack_linears(model: PreTrainedModel, rows: int) -> None:
    """Replace every linear layer. Dense weights are freed, except the head's, which is scored with.

    `unpack_linears` brings the model back to what it was.
    """
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    for name, module in list(model.named_modules()):
        if type(module) is nn.Linear:
            packed = PackedLinear(module, rows)
            if module is not head:
                packed.weight.data = torch.empty(0)
            model.set_submodule(name, packed)
    for parameter in model.parameters():
        # What is left may be a view into the mapped weights file, and would keep all of it mapped.
        parameter.data = parameter.data.clone()


def unpack_linears(model: PreTrainedModel) -> None:
    """Put plain linear layers with the weights in place now where `pack_linears` replaced them."""
    for name, module in list(model.named_modules()):
        if isinstance(module, PackedLinear):
            dense = nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            dense.weight, dense.bias = module.weight, module.bias
            if not len(dense.weight):
                dense.weight.data = module.packed.to_dense()
            model.set_submodule(name, dense)
