"""Rows and user vectors → summed response log-probs under the model as it stands.

Training, the gate and an engine's `score` share it. Knows nothing of users, pairs or adapters:
whatever adapter is attached and enabled takes part.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.batching import Row, by_length, pad_rows
from trainer.losses import sum_per_row, token_logps
from trainer.prompting import embed


def response_logps(
    model: PreTrainedModel,
    rows: Sequence[Row],
    prefixes: Sequence[Tensor | None],
    *,
    max_tokens: int,
) -> Tensor:
    """log π(response | prompt, prefix) of each row, summed over its tokens, in nats.

    Args:
        prefixes: per row the user vector (P, H), None without one.
        max_tokens: padded tokens per forward pass.

    Returns:
        (len(rows),) fp32 in the order of `rows`; gradients flow into prefixes and adapter.
    """
    if not rows:
        return torch.zeros(0, device=model.device)
    order: list[int] = []
    parts: list[Tensor] = []
    for group in by_length([row.length for row in rows], max_tokens=max_tokens):
        parts.append(_forward(model, [rows[i] for i in group], [prefixes[i] for i in group]))
        order.extend(group)
    back = torch.tensor(order, device=model.device).argsort()
    return torch.cat(parts)[back]


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


def _forward(
    model: PreTrainedModel, rows: Sequence[Row], prefixes: Sequence[Tensor | None]
) -> Tensor:
    batch = pad_rows(rows, model.device)
    starts = [row.prompt.prefix_start for row in rows]
    with autocast(model):
        # fp32 in, so that the residual stream stays fp32 under autocast.
        inputs = embed(model.get_input_embeddings(), batch.ids, starts, prefixes).float()
        hidden = _decoder(model)(inputs_embeds=inputs, use_cache=False).last_hidden_state
        head = _head(model)
        at_labels = hidden.flatten(0, 1).index_select(0, batch.positions)
        logps = token_logps(at_labels, head.weight, head.bias, batch.labels)
    return sum_per_row(logps, batch.rows, len(rows))


def _decoder(model: PreTrainedModel) -> nn.Module:
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    assert isinstance(decoder, nn.Module)
    return decoder


def _head(model: PreTrainedModel) -> nn.Linear:
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    assert isinstance(head, nn.Linear)
    return head
