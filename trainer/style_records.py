"""How often a user preferred each style → how much of each goes into the user's vector.

Every style has a chance of being preferred, unknown, Beta(1 + won, 1 + lost) after the user's
choices; the same posterior from which the styles of the next pairs are drawn (Thompson sampling).
Pure: counts in, numbers out.
"""

from __future__ import annotations

import torch
from torch import Tensor

_CELLS = 512  # of the interval of chances; exact to 1e-5 up to some hundred choices
_SHARPNESS = 3
_REACH = 1.2  # whole styles, of a user whose favourite is certain


def favourite_chances(record: Tensor) -> Tensor:
    """P(this style is preferred most): P_k = ∫ f_k(x) · Π_{j≠k} F_j(x) dx.

    Args:
        record: (S, 2), how often each style won and lost.

    Returns:
        (S,) float64, summing to 1.
    """
    at = (torch.arange(_CELLS, dtype=torch.float64) + 0.5) / _CELLS
    won, lost = record.double().cpu().unbind(-1)
    mass = (won[:, None] * at.log() + lost[:, None] * (1 - at).log()).softmax(-1)
    below = (mass.cumsum(-1) - mass / 2).clamp(min=1e-300).log()
    chances = (mass * (below.sum(0) - below).exp()).sum(-1)
    return chances / chances.sum()


def style_shares(record: Tensor) -> Tensor:
    """a = 1.2 · (Q − 1/S)₊ / (1 − 1/S) with Q = P³ / ΣP³: 0 for a stranger, 1.2 if it is certain.

    The power brings the likeliest favourite forward: half of two styles is neither of them.

    Args:
        record: (K + 1, 2), the style without a wish first.

    Returns:
        (K,) fp32, of the styles with a wish; exactly 0 without choices.
    """
    if not bool(record.any()):
        return torch.zeros(len(record) - 1)
    sharp = favourite_chances(record) ** _SHARPNESS
    even = 1 / len(record)
    excess = (sharp / sharp.sum() - even).clamp(min=0) / (1 - even)
    return (_REACH * excess[1:]).float()
