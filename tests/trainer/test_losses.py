"""Expected values are worked out by hand beside each test."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.config import TrainConfig
from trainer.losses import (
    PairLogps,
    dpo_loss,
    dpop_penalty,
    margin,
    p_dpo,
    sum_per_row,
    token_logps,
)


def logps(chosen: float, rejected: float) -> PairLogps:
    return PairLogps(torch.tensor([chosen]), torch.tensor([rejected]))


def test_margin_is_the_policy_gap_less_the_reference_gap() -> None:
    # (−10 − (−14)) − (−11 − (−12)) = 4 − 1 = 3
    assert margin(logps(-10, -14), logps(-11, -12)).item() == pytest.approx(3.0)


def test_dpo_loss_of_the_reference_itself_is_log_two() -> None:
    assert dpo_loss(logps(-7, -9), logps(-7, -9), 0.1).item() == pytest.approx(math.log(2))


def test_dpop_counts_only_a_chosen_response_that_became_less_likely() -> None:
    # 5 · (−11 − (−13)) = 10; a gain costs nothing
    assert dpop_penalty(logps(-13, 0), logps(-11, 0), 5.0).item() == pytest.approx(10.0)
    assert dpop_penalty(logps(-9, 0), logps(-11, 0), 5.0).item() == 0.0


def test_p_dpo_by_hand() -> None:
    config = TrainConfig(alpha=0.75, beta=0.5, dpop_lambda=2.0, nll_weight=0.1)
    terms = p_dpo(
        logps(-10, -14),  # h(u) = 4 − 1 = 3, no penalty: −10 > −11
        logps(-12, -13),  # h(u₀) = 1 − 1 = 0, penalty 2 · 1 = 2
        logps(-11, -12),
        torch.tensor([5]),
        config,
    )
    own = math.log(1 + math.exp(-0.5 * 3)) + 0.1 * 10 / 5  # 0.20141 + 0.2
    pooled = math.log(1 + math.exp(-0.5 * -2)) + 0.1 * 12 / 5  # 1.31326 + 0.24
    assert terms.loss.item() == pytest.approx(0.75 * own + 0.25 * pooled, rel=1e-6)
    assert terms.loss.item() == pytest.approx(0.68938, abs=1e-5)
    assert terms.margin.item() == pytest.approx(3.0)
    assert terms.generic_margin.item() == pytest.approx(0.0)
    assert terms.chosen_logp_change.item() == pytest.approx(0.2)  # (−10 + 11) / 5


def test_p_dpo_gradient_by_hand() -> None:
    # α = 1, no extras: dL/d(chosen) = −β σ(−β h), with h = 0 that is −β / 2.
    config = TrainConfig(alpha=1.0, beta=0.3, dpop_lambda=0.0, nll_weight=0.0)
    chosen = torch.tensor([-4.0], requires_grad=True)
    rejected = torch.tensor([-6.0], requires_grad=True)
    same = logps(-4, -6)
    terms = p_dpo(PairLogps(chosen, rejected), same, same, torch.tensor([3]), config)
    terms.loss.sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.15)
    assert rejected.grad.item() == pytest.approx(0.15)


def test_token_logps_by_hand() -> None:
    # Logits (0, ln 3) give probabilities 1/4 and 3/4.
    hidden = torch.tensor([[1.0], [1.0]])
    weight = torch.tensor([[0.0], [math.log(3)]])
    got = token_logps(hidden, weight, None, torch.tensor([0, 1]))
    assert got.tolist() == pytest.approx([math.log(0.25), math.log(0.75)])


@pytest.mark.parametrize("biased", [False, True])
def test_token_logps_and_its_gradient_agree_with_autograd(biased: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 5, generator=generator).requires_grad_()
    weight = torch.randn(11, 5, generator=generator)
    bias = torch.randn(11, generator=generator) if biased else None
    labels = torch.randint(11, (7,), generator=generator)
    weights = torch.randn(7, generator=generator)

    plain = torch.nn.functional.linear(hidden, weight, bias).log_softmax(-1)
    expected = plain.gather(1, labels[:, None]).squeeze(1)
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), hidden)
    got = token_logps(hidden, weight, bias, labels, chunk=3)
    (got_grad,) = torch.autograd.grad((got * weights).sum(), hidden)

    torch.testing.assert_close(got, expected)
    torch.testing.assert_close(got_grad, expected_grad)


def test_sum_per_row_leaves_an_absent_row_at_zero() -> None:
    sums = sum_per_row(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 0]), 3)
    assert sums.tolist() == [5.0, 0.0, 2.0]
