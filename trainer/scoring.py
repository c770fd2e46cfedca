"""Rows and user vectors → summed response log-probs under the model as it stands.

Training, the gate and an engine's `score` share it. Knows nothing of users, pairs or adapters:
whatever adapter is attached and enabled takes part.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.batching import Row
from trainer.head import token_logps
from trainer.kernels import Plan, kernels
from trainer.losses import sum_per_row
from trainer.packing import Forest, pack
from trainer.quick_layers import quick_layers
from trainer.tree_attention import fits, tree_attention


def response_logps(
    model: PreTrainedModel,
    rows: Sequence[Row],
    prefixes: Sequence[Tensor | None],
    *,
    max_tokens: int,
) -> Tensor:
    """log π(response | prompt, prefix) of each row, summed over its tokens, in nats.

    What rows have in common from the left is read once (see `trainer.packing`).

    Args:
        prefixes: per row the user vector (P, H), None without one; the very same tensor is shared.
        max_tokens: tokens per forward pass.

    Returns:
        (len(rows),) fp32, or fp64 as the model, in the order of `rows`; gradients flow into
        prefixes and adapter.
    """
    logps = torch.zeros(len(rows), device=model.device)
    quick = fits(model)
    most = max_tokens if quick else min(max_tokens, _longest_branching(model))
    for forest in pack(rows, prefixes, max_tokens=most, device=model.device):
        logps = logps + _forward(model, forest, len(rows), quick=quick)
    return logps


def autocast(model: PreTrainedModel) -> AbstractContextManager[object]:
    """bfloat16 autocast where the model's weights are bfloat16, otherwise nothing."""
    low = model.dtype == torch.bfloat16
    return torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=low)


def check_head(model: PreTrainedModel) -> None:
    """Make sure that logits are the output embedding applied to the decoder's hidden states.

    Raises:
        ValueError: the model does more (soft-capping, scaling), so its log-probs would be wrong.
    """
    ids = torch.arange(1, 5, device=model.device)[None]
    with torch.no_grad():
        hidden = _decoder(model)(input_ids=ids, use_cache=False).last_hidden_state
        direct = _head(model)(hidden)
        whole = model(input_ids=ids, use_cache=False).logits
    if not torch.allclose(direct, whole, rtol=1e-3, atol=1e-3):
        raise ValueError(f"{type(model).__name__} changes its logits after the head; unsupported")


def _forward(model: PreTrainedModel, forest: Forest, count: int, *, quick: bool) -> Tensor:
    """(count,) log-probs of the rows in `forest`, zero elsewhere."""
    with autocast(model), _quickly(model) if quick else nullcontext():
        # At least fp32 in, so that the residual stream stays fp32 under autocast.
        inputs = model.get_input_embeddings()(forest.ids)
        inputs = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        for start, prefix in forest.prefixes:
            places = torch.arange(start, start + len(prefix), device=inputs.device)
            inputs = inputs.index_copy(0, places, prefix.to(inputs))
        attention: dict[str, object] = {}
        if quick:
            attention["segments"] = Plan(forest.segments)
        elif forest.branches:
            # As autocast wants it: in another type it would be converted in every layer.
            device = inputs.device.type
            low = torch.is_autocast_enabled(device)
            dtype = torch.get_autocast_dtype(device) if low else inputs.dtype
            attention["attention_mask"] = forest.mask(dtype)
        hidden = _decoder(model)(
            inputs_embeds=inputs[None],
            position_ids=forest.position_ids[None],
            use_cache=False,
            **attention,
        ).last_hidden_state
        head = _head(model)
        at_labels = hidden[0].index_select(0, forest.positions)
        logps = token_logps(at_labels, head.weight, head.bias, forest.labels)
    return sum_per_row(logps.index_select(0, forest.sums[0]), forest.sums[1], count)


@contextmanager
def _quickly(model: PreTrainedModel) -> Iterator[None]:
    """Attention over a forest, and what kernels can do, where they can be compiled."""
    compiled = kernels()
    with tree_attention(model), quick_layers(model, compiled) if compiled else nullcontext():
        yield


def _longest_branching(model: PreTrainedModel) -> int:
    """Most tokens of several rows at once where attention only looks back so far.

    A layer that keeps to a window counts places in the sequence, not position ids.
    """
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    return window if isinstance(window, int) else sys.maxsize


def _decoder(model: PreTrainedModel) -> nn.Module:
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    assert isinstance(decoder, nn.Module)
    return decoder


def _head(model: PreTrainedModel) -> nn.Linear:
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    assert isinstance(head, nn.Linear)
    return head
