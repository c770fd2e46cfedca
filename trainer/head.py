"""Log-probs of tokens under a frozen head, and their gradient, without a (positions, V) tensor.

The head W is frozen, so the whole gradient is ∂/∂h = W[label] − softmax(h Wᵀ) W; it is taken in the
forward pass, while the logits are at hand. Pure; knows nothing of models and losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.kernels import TYPES, Kernels, kernels

# Block by block of the vocabulary, W is read once, and the logits stay in the processor's cache.
_WORDS = 4096
_POSITIONS = 1024
_POSITIONS_OF_WHOLE_ROWS = 128


class _FrozenHeadLogps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor
    ) -> Tensor:
        quick = weight.device.type == "cpu" and weight.dtype in TYPES
        compiled = kernels() if quick else None
        at_once = _POSITIONS_OF_WHOLE_ROWS if compiled is None else _POSITIONS
        wanted = ctx.needs_input_grad[0]
        logps, slopes = [], []
        with torch.autocast(weight.device.type, enabled=False):
            for some, of in zip(
                torch.split(hidden, at_once), torch.split(labels, at_once), strict=True
            ):
                low = some.to(weight.dtype)
                if compiled is None:
                    logp, expected = _by_rows(low, weight, bias, of, wanted=wanted)
                else:
                    logp, expected = _by_words(low, weight, bias, of, compiled, wanted=wanted)
                logps.append(logp)
                if wanted:
                    slopes.append((weight[of] - expected).to(hidden.dtype))
        ctx.save_for_backward(torch.cat(slopes) if slopes else hidden.new_empty(0))
        return torch.cat(logps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return slope * grad[:, None].to(slope.dtype), None, None, None


def _by_rows(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, wanted: bool
) -> tuple[Tensor, Tensor]:
    """Log-probs (N,) and, if wanted, softmax(h Wᵀ) W, (N, H)."""
    logits = F.linear(hidden, weight, bias).to(torch.promote_types(weight.dtype, torch.float32))
    logits = logits.log_softmax(dim=-1)
    logps = logits.gather(1, labels[:, None]).squeeze(1)
    return logps, logits.exp_().to(weight.dtype) @ weight if wanted else logps


def _by_words(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    compiled: Kernels,
    *,
    wanted: bool,
) -> tuple[Tensor, Tensor]:
    """The same, some words of the vocabulary at a time: largest logit and sum run along."""
    running = compiled.running(labels)
    expected = torch.zeros(hidden.shape, dtype=torch.float32) if wanted else hidden
    room = hidden.new_empty(len(hidden) * _WORDS)
    for first in range(0, len(weight), _WORDS):
        words = weight[first : first + _WORDS]
        logits = room[: len(hidden) * len(words)].view(len(hidden), -1)
        some = None if bias is None else bias[first : first + _WORDS]
        compiled.products([(hidden, words.T)], some, out=logits)
        fallen = running.take(logits, first, keep=wanted)
        if wanted:
            expected.mul_(fallen[:, None]).add_(compiled.products([(logits, words)]))
    return running.logps(), expected.div_(running.sums[:, None]) if wanted else expected


def token_logps(hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor) -> Tensor:
    """log π(label | hidden) of each position under a frozen head, in nats.

    Args:
        hidden: (N, H) last hidden states, each the one *before* its label.
        weight, bias: the head, (V, H) and (V,) or None; they get no gradient.
        labels: (N,) token ids.

    Returns:
        (N,) fp32, or as wide as `weight`; differentiable (once) in `hidden`.
    """
    logps: Tensor = _FrozenHeadLogps.apply(hidden, weight, bias, labels)  # type: ignore[no-untyped-call]
    return logps
