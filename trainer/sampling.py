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
_SHORTLIST = 512  # tokens; a nucleus is rarely larger


class RowSampler:
    """How one row draws, and the state of its random numbers."""

    def __init__(self, *, temperature: float, top_p: float, seed: int) -> None:
        self.temperature = temperature
        self.top_p = top_p
        # On the CPU whatever the model's device, so that a seed means the same everywhere.
        self._generator = torch.Generator().manual_seed(seed)
        self._uniform: Tensor | None = None

    def prepare(self, vocabulary: int) -> None:
        """Make the next draw's random numbers now; with a GPU, while it is at work."""
        if self.temperature > 0 and self._uniform is None:
            self._uniform = torch.rand(vocabulary, generator=self._generator)

    def draw(self, logits: Tensor) -> Tensor:
        """The row's next token, a scalar, from logits (V,); temperature 0 takes the largest."""
        if self.temperature == 0:
            return logits.argmax()
        scores = logits.float() / self.temperature
        uniform = self._taken(len(scores)).to(scores.device)
        if self.top_p >= 1:
            return (scores + _gumbel(uniform)).argmax()
        ids = nucleus(scores, self.top_p)
        return ids[(scores[ids] + _gumbel(uniform[ids])).argmax()]

    def draw_among(self, largest: Tensor, ids: Tensor, total: Tensor, logits: Tensor) -> Tensor:
        """The same from a shortlist, on the CPU; whatever else is needed is fetched.

        Args:
            largest, ids: (N,) the row's largest logits, descending, and their tokens.
            total: logsumexp of all logits over the temperature.
            logits: (V,) all of them, wherever they are.
        """
        ranked = largest / self.temperature
        mass = (ranked - total).exp().cumsum(-1)
        if self.top_p >= 1 or not bool(mass[-1] >= self.top_p):
            return self.draw(logits.cpu())
        count = int((mass < self.top_p).sum()) + 1
        uniform = self._taken(len(logits))[ids[:count]]
        return ids[(ranked[:count] + _gumbel(uniform)).argmax()]

    def _taken(self, vocabulary: int) -> Tensor:
        """The next draw's numbers, uniform in [0, 1), (V,)."""
        self.prepare(vocabulary)
        uniform, self._uniform = self._uniform, None
        assert uniform is not None
        return uniform


def draw(logits: Tensor, samplers: Sequence[RowSampler]) -> Tensor:
    """One token id per row, (B,) on the CPU, from logits (B, V) on any device."""
    if logits.device.type == "cpu":
        return torch.stack(
            [sampler.draw(row) for sampler, row in zip(samplers, logits, strict=True)]
        )
    return draw_from_shortlists(logits, samplers)


def draw_from_shortlists(logits: Tensor, samplers: Sequence[RowSampler]) -> Tensor:
    """The same as row by row, with one transfer from the logits' device for all rows."""
    greedy = logits.argmax(-1)
    if all(sampler.temperature == 0 for sampler in samplers):
        return greedy.cpu()
    largest, ids = logits.float().topk(min(_SHORTLIST, logits.shape[-1]))
    totals = _totals(logits, [sampler.temperature for sampler in samplers])
    # As fp32, which holds every token id up to 16 million, they travel together.
    parts = [greedy[:, None].float(), totals[:, None], largest, ids.float()]
    rows = torch.cat(parts, 1).cpu()
    count = largest.shape[-1]
    tokens = rows[:, 0].long()
    for at, (sampler, row) in enumerate(zip(samplers, rows, strict=True)):
        if sampler.temperature > 0:
            likely, their_ids = row[2 : 2 + count], row[2 + count :].long()
            tokens[at] = sampler.draw_among(likely, their_ids, row[1], logits[at])
    return tokens


def _totals(logits: Tensor, temperatures: Sequence[float]) -> Tensor:
    """(B,) logsumexp of each row's logits over its temperature; 0 where that is 0."""
    if len(set(temperatures)) == 1:
        return (logits.float() / temperatures[0]).logsumexp(-1)
    return torch.stack(
        [
            (row.float() / t).logsumexp(-1) if t > 0 else row.new_zeros((), dtype=torch.float32)
            for row, t in zip(logits, temperatures, strict=True)
        ]
    )


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
