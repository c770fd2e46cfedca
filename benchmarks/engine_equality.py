"""Whether the engine's greedy tokens are those of `transformers.generate`.

In fp32 every one is expected to be. In bfloat16 rounding decides near ties, so there each side is
also held against itself.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from backend.base_model import BaseModel
from benchmarks.engine_world import NEW_TOKENS, USERS, Sides


def equality(model: BaseModel, told: argparse.Namespace) -> dict[str, Any]:
    """Greedy tokens of both sides in fp32: eight users' pairs together, and one pair alone."""
    exact = argparse.Namespace(**(vars(told) | {"dtype": "float32"}))
    with tempfile.TemporaryDirectory(prefix="attune-bench-") as folder, ExitStack() as stack:
        served, expected = _greedy(Sides(model, Path(folder) / "version", exact, stack))
    return {
        "greedy_tokens_equal": served == expected,
        "greedy_tokens_agreeing": _agreeing(served, expected),
        "greedy_tokens_compared": sum(map(len, expected)),
    }


def agreement(sides: Sides) -> dict[str, Any]:
    """The same in the type that is served, and each side against itself in a batch and out of it.

    Where rounding decides, `generate` in a batch of eight is no yardstick for itself alone.
    """
    served, expected = _greedy(sides)
    pairs_alone = [
        row for user in USERS for row in sides.generate([user], 2, NEW_TOKENS, sampled=False)
    ]
    alone = expected[: 2 * len(USERS) : 2]
    in_a_batch = sides.peer.generate(USERS, 1, NEW_TOKENS, sampled=False)
    return {
        "served_tokens_agreeing": _agreeing(served, expected),
        "engine_equals_itself_in_any_company": served[: 2 * len(USERS)] == pairs_alone,
        "generate_agrees_with_itself": round(
            _agreeing(in_a_batch, alone) / sum(map(len, alone)), 2
        ),
    }


def _greedy(sides: Sides) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """What the engine makes of eight pairs together and of the first alone; what `generate` does.

    `generate` answers each user alone.
    """
    together = sides.generate(USERS, 2, NEW_TOKENS, sampled=False)
    first = sides.generate(USERS[:1], 2, NEW_TOKENS, sampled=False)
    alone = [sides.peer.generate([user], 1, NEW_TOKENS, sampled=False)[0] for user in USERS]
    expected = [row for row in alone for _ in range(2)]
    return together + first, expected + expected[:2]


def _agreeing(made: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]) -> int:
    return sum(agreeing(a, b) for a, b in zip(made, wanted, strict=True))


def agreeing(made: Sequence[int], wanted: Sequence[int]) -> int:
    """Tokens until the first that differs."""
    for place, (a, b) in enumerate(zip(made, wanted, strict=True)):
        if a != b:
            return place
    return len(made)
