"""Rows and user vectors → summed response log-probs under the model as it stands.

Training, the gate and an engine's `score` share it. Knows nothing of users, pairs or adapters:
whatever adapter is attached and enabled takes part.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.batching import Row, by_length
from trainer.losses import sum_per_row, token_logps
from trainer.packing import Pack, pack, pad_packs
from trainer.prompting import embed


def response_logps(
    model: PreTrainedModel,
    rows: Sequence[Row],
    prefixes: Sequence[Tensor | None],
    *,
    max_tokens: int,
) -> Tensor:
    """log π(response | prompt, prefix) of each row, summed over its tokens, in nats.

    Rows with the very same prompt and prefix objects are packed: what they share is read once.

    Args:
        prefixes: per row the user vector (P, H), None without one.
        max_tokens: padded tokens per forward pass.

    Returns:
        (len(rows),) fp32 in the order of `rows`; gradients flow into prefixes and adapter.
    """
    logps = torch.zeros(len(rows), device=model.device)
    packs = pack(rows, prefixes, max_tokens=min(max_tokens, _longest_pack(model)))
    for group in by_length([one.length for one in packs], max_tokens=max_tokens):
        logps = logps + _forward(model, [packs[i] for i in group], len(rows))
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


def _forward(model: PreTrainedModel, packs: Sequence[Pack], count: int) -> Tensor:
    """(count,) log-probs of the rows in `packs`, zero elsewhere."""
    batch = pad_packs(packs, model.device)
    starts = [one.prompt.prefix_start for one in packs]
    with autocast(model):
        # fp32 in, so that the residual stream stays fp32 under autocast.
        inputs = embed(
            model.get_input_embeddings(), batch.ids, starts, [one.prefix for one in packs]
        ).float()
        # Without branches no mask: attention keeps its fast causal path.
        hidden = _decoder(model)(
            inputs_embeds=inputs,
            position_ids=batch.position_ids,
            attention_mask=batch.mask(inputs.dtype) if batch.branches else None,
            use_cache=False,
        ).last_hidden_state
        head = _head(model)
        at_labels = hidden.flatten(0, 1).index_select(0, batch.positions)
        logps = token_logps(at_labels, head.weight, head.bias, batch.labels)
    return sum_per_row(logps, batch.rows, count)


def _longest_pack(model: PreTrainedModel) -> int:
    """Most tokens a pack may have: where attention only looks back so far, order in the pack shows.

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
