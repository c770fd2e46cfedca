"""Drawing tokens: the nucleus, the distribution, and what a draw depends on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.sampling import RowSampler, draw, draw_from_shortlists, nucleus


def sampler(seed: int = 0, temperature: float = 1.0, top_p: float = 1.0) -> RowSampler:
    return RowSampler(temperature=temperature, top_p=top_p, seed=seed)


def test_temperature_zero_takes_the_largest_logit() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]])
    assert draw(logits, [sampler(temperature=0.0)] * 2).tolist() == [1, 0]


def test_nucleus_worked_out_by_hand() -> None:
    scores = torch.tensor([0.1, 0.5, 0.25, 0.15]).log() + 7.0
    assert nucleus(scores, 0.4).tolist() == [1]
    assert nucleus(scores, 0.6).tolist() == [1, 2]
    assert nucleus(scores, 0.8).tolist() == [1, 2, 3]
    assert nucleus(scores, 0.95).tolist() == [1, 2, 3, 0]


@pytest.mark.parametrize("spread", [0.0, 0.5, 1.0, 4.0])
def test_nucleus_is_the_same_however_far_the_ranking_has_to_go(spread: float) -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randn(5000, generator=generator, dtype=torch.float32) * spread
    ranked, order = scores.double().softmax(-1).sort(descending=True)
    needed = int((ranked.cumsum(-1) < 0.9).sum()) + 1
    found = nucleus(scores, 0.9)
    assert abs(len(found) - needed) <= 1  # fp32 sums
    assert spread == 0.0 or found[:needed].tolist() == order[: len(found)][:needed].tolist()


@given(seed=st.integers(0, 2**63 - 1), top_p=st.floats(0.05, 1.0))
@settings(max_examples=50, deadline=None)
def test_a_draw_is_inside_the_nucleus_and_fixed_by_the_seed(seed: int, top_p: float) -> None:
    logits = torch.randn(64, generator=torch.Generator().manual_seed(seed % 7))
    token = int(sampler(seed, 0.7, top_p).draw(logits))
    assert token in nucleus(logits / 0.7, min(top_p, 0.999999)).tolist() or top_p > 0.999
    company = torch.stack([logits * 2, logits, -logits])
    samplers = [sampler(seed, 0.3), sampler(seed, 0.7, top_p), sampler(seed + 1)]
    assert int(draw(company, samplers)[1]) == token


def test_frequencies_are_the_softmax_of_logits_over_temperature() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0])
    drawing = sampler(seed=4, temperature=2.0)
    draws = 4000
    counts = torch.zeros(4)
    for _ in range(draws):
        counts[int(drawing.draw(logits))] += 1
    for share, expected in zip(counts / draws, (logits / 2.0).softmax(-1), strict=True):
        error = math.sqrt(float(expected) * (1 - float(expected)) / draws)
        assert abs(float(share - expected)) < 5 * error


def test_later_draws_differ_from_the_first() -> None:
    drawing = sampler(seed=9)
    assert len({int(drawing.draw(torch.zeros(1000))) for _ in range(10)}) > 5


@pytest.mark.parametrize(
    ("spread", "tokens"),
    [(0.1, (4097, 6000)), (1.0, (513, 4096)), (2.0, (1, 4096)), (6.0, (1, 512))],
)
def test_shortlists_give_the_draws_of_row_by_row(spread: float, tokens: tuple[int, int]) -> None:
    """Nuclei of so many tokens: of the first shortlist, the second, none; one row takes all."""

    def rows() -> list[RowSampler]:
        settings = [(0.0, 1.0), (0.8, 0.95), (1.3, 0.5), (0.8, 1.0), (0.8, 0.95)]
        return [sampler(seed, t, p) for seed, (t, p) in enumerate(settings)]

    one_by_one, together = rows(), rows()
    for turn in range(20):
        generator = torch.Generator().manual_seed(turn)
        logits = spread * torch.randn(5, 6000, generator=generator)
        assert tokens[0] <= len(nucleus(logits[1] / 0.8, 0.95)) <= tokens[1]
        if turn % 2:
            for row in together:
                row.prepare(6000)
        expected = draw(logits, one_by_one)
        assert draw_from_shortlists(logits, together).tolist() == expected.tolist()


def test_shortlists_of_rows_that_are_all_alike() -> None:
    logits = torch.randn(3, 900, generator=torch.Generator().manual_seed(2))
    assert draw_from_shortlists(logits, [sampler(temperature=0.0)] * 3).tolist() == (
        logits.argmax(-1).tolist()
    )
    one_by_one = draw(logits, [sampler(s, 0.7, 0.9) for s in range(3)]).tolist()
    together = [sampler(s, 0.7, 0.9) for s in range(3)]
    assert draw_from_shortlists(logits, together).tolist() == one_by_one
