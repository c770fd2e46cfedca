"""What π_ref says of pairs, for benchmarks that train on them.

Knows nothing of what is kept with pairs: everything is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from trainer.batching import PairRows
from trainer.scoring import response_logps


@torch.no_grad()
def base_logps(
    model: PreTrainedModel, pairs: Sequence[PairRows], *, max_tokens: int
) -> dict[int, float]:
    """response_id → log π_ref, nats; no adapter may be at work.

    Args:
        max_tokens: tokens per forward pass.
    """
    rows = [row for p in pairs for row in (p.reference_chosen, p.reference_rejected)]
    logps = response_logps(model, rows, [None] * len(rows), max_tokens=max_tokens)
    ids = [r.response_id for p in pairs for r in (p.pair.chosen, p.pair.rejected)]
    return dict(zip(ids, logps.tolist(), strict=True))
