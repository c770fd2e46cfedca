"""Numbers made here → a tensor on a device, without waiting for what the device is at.

Built element by element on a GPU, or sent as torch does unless told otherwise, each would let the
GPU run empty. Knows nothing of what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def to_device(numbers: Sequence[int] | Sequence[float], device: torch.device) -> Tensor:
    """(len(numbers),): int64 if all are integers, else of torch's default type."""
    kind = torch.int64 if all(isinstance(number, int) for number in numbers) else None
    return torch.tensor(numbers, dtype=kind).to(device, non_blocking=True)
