"""Logits of rows with different sampling settings → one token each. Pure but for the generators.

A row's draw depends on its own logits and seed alone: noise comes from the row's own generator, and
the token is the largest of logit/temperature plus Gumbel noise among the nucleus (the Gumbel-max
trick: a draw from the softmax). A rounding difference between a small and a large batch therefore
changes a token only where two candidates were tied to begin with.

Knows nothing of prompts, texts or key/value caches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from backend.engines.base import Sampling

_NUCLEUS_GUESS = 1024  # sorting so many finds nearly every nucleus; the whole vocabulary is slow


class RowSampler:
    """How one row draws, and the state of its random numbers."""

    def __init__(self, sampling: Sampling) -> None:
        self.temperature = sampling.temperature
        self.top_p = sampling.top_p
        # On the CPU whatever the model's device, so that a seed means the same everywhere.
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def gumbel(self, size: int) -> Tensor:
        """(size,) fp32 standard Gumbel noise, the next of this row."""
        return torch.empty(size).exponential_(generator=self._generator).log_().neg_()


def draw(logits: Tensor, samplers: Sequence[RowSampler]) -> Tensor:
    """One token id per row.

    Args:
        logits: (B, V), any float type.
        samplers: one per row; temperature 0 takes the largest logit.

    Returns:
        (B,) int64.
    """
    chosen = logits.argmax(-1)
    rows = [row for row, sampler in enumerate(samplers) if sampler.temperature > 0]
    if not rows:
        return chosen
    warm = [samplers[row] for row in rows]
    temperatures = torch.tensor([s.temperature for s in warm], device=logits.device)
    top_p = torch.tensor([s.top_p for s in warm], device=logits.device)
    scores = logits[rows].float() / temperatures[:, None]
    noise = torch.stack([s.gumbel(logits.shape[-1]) for s in warm]).to(logits.device)
    outside = scores < nucleus_floor(scores, top_p)
    chosen[rows] = (scores + noise).masked_fill_(outside, -torch.inf).argmax(-1)
    return chosen


def nucleus_floor(scores: Tensor, top_p: Tensor) -> Tensor:
    """The smallest score inside the nucleus: the fewest likeliest tokens that reach `top_p`.

    Args:
        scores: (B, V) fp32 unnormalized log-probs.
        top_p: (B,) in (0, 1]; 1 keeps everything.

    Returns:
        (B, 1); -inf where everything is kept.
    """
    everything = top_p >= 1
    if bool(everything.all()):
        return torch.full_like(scores[:, :1], -torch.inf)
    total = scores.logsumexp(-1, keepdim=True)
    guess = min(_NUCLEUS_GUESS, scores.shape[-1])
    ranked = scores.topk(guess).values
    mass = (ranked - total).exp().cumsum(-1)
    if guess < scores.shape[-1] and bool(((mass[:, -1] < top_p) & ~everything).any()):
        ranked = scores.sort(-1, descending=True).values
        mass = (ranked - total).exp().cumsum(-1)
    inside = (mass < top_p[:, None]).sum(-1, keepdim=True).clamp(max=ranked.shape[-1] - 1)
    return ranked.gather(-1, inside).masked_fill(everything[:, None], -torch.inf)
