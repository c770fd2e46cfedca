"""Logits of rows with different sampling settings → one token each.

A row's draw depends on its own logits and seed alone: noise comes from the row's own generator, and
the token is the largest of logit/temperature plus Gumbel noise among the nucleus (the Gumbel-max
trick: a draw from the softmax). A rounding difference between a small and a large batch therefore
changes a token only where two candidates were tied to begin with.

Knows nothing of prompts, texts or key/value caches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_LIKELY = 2e-4  # probability


class RowSampler:
    """How one row draws, and the state of its random numbers."""

    def __init__(self, *, temperature: float, top_p: float, seed: int) -> None:
        self._temperature = temperature
        self._top_p = top_p
        # On the CPU whatever the model's device, so that a seed means the same everywhere.
        self._generator = torch.Generator().manual_seed(seed)

    def draw(self, logits: Tensor) -> Tensor:
        """The row's next token, a scalar, from logits (V,); temperature 0 takes the largest."""
        if self._temperature == 0:
            return logits.argmax()
        scores = logits.float() / self._temperature
        uniform = torch.rand(len(scores), generator=self._generator).to(scores.device)
        if self._top_p >= 1:
            return (scores + _gumbel(uniform)).argmax()
        ids = nucleus(scores, self._top_p)
        return ids[(scores[ids] + _gumbel(uniform[ids])).argmax()]


def draw(logits: Tensor, samplers: Sequence[RowSampler]) -> Tensor:
    """One token id per row, (B,), from logits (B, V)."""
    return torch.stack([sampler.draw(row) for sampler, row in zip(samplers, logits, strict=True)])


def nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Ids of the fewest likeliest tokens whose probabilities sum to `top_p` (arXiv 1904.09751).

    Args:
        scores: (V,) fp32, unnormalized log-probs.
        top_p: in (0, 1].

    Returns:
        (N,) int64, likeliest first, N ≥ 1.
    """
    total = scores.logsumexp(-1)
    # Ranking the whole vocabulary is slow, and the nucleus is nearly always among the likeliest few
    # hundred. If not: tokens below an equal part of what may be left out cannot sum to more than
    # that; half of it leaves room for rounding.
    left_out = max(1 - top_p, 0.0) / 2 / len(scores)
    for floor in (_LIKELY, left_out):
        ids = (scores >= total + (math.log(floor) if floor else -math.inf)).nonzero()[:, 0]
        mass = (scores[ids] - total).exp().sum()
        if bool(mass >= top_p):
            break
    ranked, order = scores[ids].sort(descending=True)
    mass = (ranked - total).exp().cumsum(-1)
    return ids[order[: int((mass < top_p).sum()) + 1]]


def _gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel noise from uniform noise in [0, 1)."""
    return -(-uniform.log()).log()
