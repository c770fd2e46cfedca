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

from trainer.transfer import to_device

_LIKELY = (2e-4, 3e-5, 5e-6)  # probabilities
_SHORTLISTS = (512, 4096)  # tokens; a nucleus is rarely larger than the first


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
        uniform = self.take_numbers(len(scores)).to(scores.device)
        if self.top_p >= 1:
            return (scores + _gumbel(uniform)).argmax()
        ids = nucleus(scores, self.top_p)
        return ids[(scores[ids] + _gumbel(uniform[ids])).argmax()]

    def take_numbers(self, vocabulary: int) -> Tensor:
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
    """The same as row by row, with one transfer from the logits' device for all rows.

    What the likeliest few hundred tokens do not decide takes a second transfer, of more tokens; a
    row that takes every token, or nearly, comes over whole.
    """
    greedy = logits.argmax(-1)
    if all(sampler.temperature == 0 for sampler in samplers):
        return greedy.cpu()
    # Divided by a tensor: by a number, CUDA would multiply by its rounded inverse.
    temperatures = to_device([sampler.temperature or 1.0 for sampler in samplers], logits.device)
    scores = logits.float() / temperatures[:, None]
    facts = torch.stack([greedy.float(), scores.logsumexp(-1)], 1)
    tokens = torch.zeros(len(samplers), dtype=torch.long)
    whole = [at for at, one in enumerate(samplers) if one.temperature > 0 and one.top_p >= 1]
    left = [at for at in range(len(samplers)) if at not in whole]
    for size in _SHORTLISTS:
        if left:
            drawn = _draw_among(
                _fetch(scores, facts, left, size), [samplers[at] for at in left], scores.shape[-1]
            )
            tokens[left] = drawn
            left = [at for at, token in zip(left, drawn.tolist(), strict=True) if token < 0]
    if left := sorted(whole + left):
        rows = logits.index_select(0, to_device(left, logits.device)).cpu()
        tokens[left] = torch.stack(
            [samplers[at].draw(row) for at, row in zip(left, rows, strict=True)]
        )
    return tokens


def _fetch(scores: Tensor, facts: Tensor, rows: Sequence[int], size: int) -> Tensor:
    """Two facts of each row, its largest scores, descending, and their tokens; on the CPU."""
    if len(rows) < len(scores):
        index = to_device(rows, scores.device)
        scores, facts = scores.index_select(0, index), facts.index_select(0, index)
    largest, ids = scores.topk(min(size, scores.shape[-1]))
    # As fp32, which holds every token id up to 16 million, they travel together.
    return torch.cat([facts, largest, ids.float()], 1).cpu()


def _draw_among(fetched: Tensor, samplers: Sequence[RowSampler], vocabulary: int) -> Tensor:
    """(R,) tokens of the rows that `_fetch` gave; −1 where a row's nucleus is no part of them."""
    size = (fetched.shape[-1] - 2) // 2
    greedy, total, ranked, ids = torch.split(fetched, [1, 1, size, size], 1)
    top_p = torch.tensor([[sampler.top_p] for sampler in samplers])
    draws = torch.tensor([[sampler.temperature > 0] for sampler in samplers])
    mass = (ranked - total).exp().cumsum(-1)
    enough = mass[:, -1:] >= top_p
    tokens = torch.where(draws, -1, greedy).long()[:, 0]
    rows = (draws & enough).nonzero()[:, 0]
    if not len(rows):
        return tokens
    counts = (mass[rows] < top_p[rows]).sum(-1, keepdim=True) + 1
    most = int(counts.max())
    ids = ids[rows, :most].long()
    uniform = torch.stack(
        [
            samplers[row].take_numbers(vocabulary)[likely]
            for row, likely in zip(rows.tolist(), ids, strict=True)
        ]
    )
    noisy = (ranked[rows, :most] + _gumbel(uniform)).masked_fill(
        torch.arange(most) >= counts, -math.inf
    )
    tokens[rows] = ids.gather(1, noisy.argmax(-1, keepdim=True))[:, 0]
    return tokens


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
    # hundred. If not, some more are ranked; at last all but tokens below an equal part of what may
    # be left out, which cannot sum to more than that: half of it leaves room for rounding.
    left_out = max(1 - top_p, 0.0) / 2 / len(scores)
    for floor in (*_LIKELY, left_out):
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
