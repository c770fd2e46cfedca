"""What a list of times comes to. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: int) -> float:
    """The percentile of two values or more; between neighbours where it falls there."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]
