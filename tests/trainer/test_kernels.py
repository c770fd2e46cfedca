"""Attention over random forests, both directions: by kernels, by torch, and under a whole mask."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer import tree_attention
from trainer.batching import Row
from trainer.kernels import Plan
from trainer.packing import Forest, pack
from trainer.prompting import EncodedPrompt

Heads = tuple[Tensor, Tensor, Tensor]
OFF = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 1e-2}


def forest(seed: int, longest: int) -> Forest:
    """Some rows that begin alike, or do not, of up to so many tokens in each of their parts."""
    rng = random.Random(seed)

    def some() -> tuple[int, ...]:
        return tuple(rng.choices(range(2, 9), k=rng.randint(1, longest)))

    head = some()
    prompts = [EncodedPrompt(head + some(), None) for _ in range(rng.randint(1, 3))]
    rows = [Row(prompt, some()) for prompt in prompts for _ in range(rng.randint(1, 3))]
    (packed,) = pack(rows, [None] * len(rows), max_tokens=10_000, device=torch.device("cpu"))
    return packed


def made_up(tokens: int, heads: tuple[int, int], size: int, seed: int) -> Heads:
    """As transformers hands them on: (1, heads, N, D), strided; the values' rows have gaps."""
    noise = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(1, tokens, count, size + more, generator=noise).transpose(1, 2)
        for count, more in ((heads[0], 0), (heads[1], 0), (heads[1], 3))
    )
    return query, key, value[..., :size]


def under_a_mask(of: Heads, packed: Forest, scale: float) -> Tensor:
    query, key, value = of
    each = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(each, 1).transpose(2, 3) * scale
    shares = (scores + packed.mask(scores.dtype)).softmax(-1)
    return (shares @ value.repeat_interleave(each, 1)).transpose(1, 2)


def with_slopes(made: Tensor, of: Heads, grad: Tensor) -> list[Tensor]:
    return [made.detach(), *torch.autograd.grad(made, of, grad.to(made.dtype))]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", OFF)
@pytest.mark.parametrize(
    ("heads", "size", "longest"),
    [
        ((4, 2), 8, 5),
        ((9, 3), 64, 30),
        ((3, 3), 80, 90),  # a head wider than a block; segments that are not put together
        ((2, 1), 7, 12),  # an odd size
        ((60, 1), 16, 4),  # more heads in a group than rows in a tile
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_all_ways_agree(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    heads: tuple[int, int],
    size: int,
    longest: int,
    dtype: torch.dtype,
    compiled: bool,
) -> None:
    if not compiled:
        monkeypatch.setattr(tree_attention, "kernels", lambda: None)
    packed = forest(seed, longest)
    query, key, value = (
        x.to(dtype).double().requires_grad_() for x in made_up(len(packed.ids), heads, size, seed)
    )
    exact = query, key, value
    grad = torch.randn(
        1, len(packed.ids), heads[0], size, generator=torch.Generator().manual_seed(seed)
    ).to(dtype)
    wanted = with_slopes(under_a_mask(exact, packed, 0.3), exact, grad)

    given: Any = tuple(x.detach().to(dtype).requires_grad_() for x in exact)
    plan = Plan(packed.segments)
    made, _ = tree_attention._attend(nn.Module(), *given, segments=plan, scaling=0.3)
    for got, want in zip(with_slopes(made, given, grad), wanted, strict=True):
        assert got.dtype == dtype
        assert (got - want).norm() < OFF[dtype] * want.norm()


def test_threads_share_the_work_and_change_nothing_but_sums() -> None:
    packed = forest(3, 60)
    plan = Plan(packed.segments)
    given = made_up(len(packed.ids), (9, 3), 64, 1)
    for one in given:
        one.requires_grad_()
    grad = torch.ones(1, len(packed.ids), 9, 64)
    usual = torch.get_num_threads()
    made = []
    try:
        for threads in (1, 3, 3):
            torch.set_num_threads(threads)
            attended, _ = tree_attention._attend(nn.Module(), *given, segments=plan)
            made.append(with_slopes(attended, given, grad))
    finally:
        torch.set_num_threads(usual)
    for one, other, again in zip(*made, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        assert torch.equal(other, again)


def test_what_is_undefined_stays_so() -> None:
    packed = forest(0, 8)
    query, key, value = made_up(len(packed.ids), (4, 2), 8, 0)
    query[0, 1, 2, 3] = torch.nan
    plan = Plan(packed.segments)
    made, _ = tree_attention._attend(nn.Module(), query, key, value, segments=plan)
    assert made[0, 2, 1].isnan().all()
    assert made.isnan().sum() == 8
