"""Expected values are worked out by hand beside each test."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.config import Loss, TrainConfig
from trainer.losses import (
    PairLogps,
    PairTokens,
    dpop_penalty,
    hinge_loss,
    ipo_loss,
    margin,
    p_dpo,
    preference_loss,
    robust_loss,
    sigmoid_loss,
    sum_per_row,
)


def logps(chosen: float, rejected: float) -> PairLogps:
    return PairLogps(torch.tensor([chosen]), torch.tensor([rejected]))


def test_margin_is_the_policy_gap_less_the_reference_gap() -> None:
    # (−10 − (−14)) − (−11 − (−12)) = 4 − 1 = 3
    assert margin(logps(-10, -14), logps(-11, -12)).item() == pytest.approx(3.0)


def tokens(chosen: int, rejected: int) -> PairTokens:
    return PairTokens(torch.tensor([chosen]), torch.tensor([rejected]))


H = torch.tensor([0.0, 4.0, -4.0])


def test_sigmoid_loss_by_hand() -> None:
    # β h = 0, 2, −2: log 2, log(1 + e⁻²), log(1 + e²)
    assert sigmoid_loss(H, 0.5).tolist() == pytest.approx([0.693147, 0.126928, 2.126928], abs=1e-6)


def test_ipo_loss_by_hand() -> None:
    # The target is 1 / (2 · 0.5) = 1 nat: (0 − 1)², (4 − 1)², (−4 − 1)²
    assert ipo_loss(H, 0.5).tolist() == pytest.approx([1.0, 9.0, 25.0])


def test_robust_loss_by_hand() -> None:
    # ε = 0.1: (0.9 · ℓ(h) − 0.1 · ℓ(−h)) / 0.8, with ℓ(4) = 0.126928 and ℓ(−4) = 2.126928
    #   h = 0:  0.8 · 0.693147 / 0.8                          = 0.693147
    #   h = 4:  (0.9 · 0.126928 − 0.1 · 2.126928) / 0.8       = −0.123072
    #   h = −4: (0.9 · 2.126928 − 0.1 · 0.126928) / 0.8       = 2.376928
    expected = [0.693147, -0.123072, 2.376928]
    assert robust_loss(H, 0.5, 0.1).tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(robust_loss(H, 0.5, 0.0), sigmoid_loss(H, 0.5))


def test_robust_loss_is_unbiased_under_its_noise() -> None:
    # A label is turned round with ε: the mean over the noise is the loss of the true label.
    noisy = 0.7 * robust_loss(H, 0.5, 0.3) + 0.3 * robust_loss(-H, 0.5, 0.3)
    torch.testing.assert_close(noisy, sigmoid_loss(H, 0.5))


def test_hinge_loss_by_hand() -> None:
    # max(0, 1 − 0), max(0, 1 − 2), max(0, 1 + 2)
    assert hinge_loss(H, 0.5).tolist() == pytest.approx([1.0, 0.0, 3.0])


@pytest.mark.parametrize(
    ("loss", "expected"),
    # h = 4 under β 0.5, ε 0.1, as above
    [("sigmoid", 0.126928), ("ipo", 9.0), ("robust", -0.123072), ("hinge", 0.0)],
)
def test_the_recipe_chooses_the_loss(loss: Loss, expected: float) -> None:
    config = TrainConfig(loss=loss, beta=0.5, label_noise=0.1)
    assert preference_loss(torch.tensor([4.0]), config).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "own", "pooled"),
    # h(u) − d(u) = 3 and h(u₀) − d(u₀) = −2, as in `test_p_dpo_by_hand`; β = 0.5:
    #   ipo: target 1, (3 − 1)² = 4 and (−2 − 1)² = 9;  hinge: 1 − 1.5 < 0 and 1 + 1 = 2
    #   robust, ε = 0.25: ℓ(3) = 0.201413, ℓ(−3) = 1.701413, so (0.75 · 0.201413 − 0.25 · 1.701413)
    #   / 0.5 = −0.548587; ℓ(−2) = 1.313262, ℓ(2) = 0.313262: (0.984946 − 0.078315) / 0.5 = 1.813262
    [("ipo", 4.0, 9.0), ("hinge", 0.0, 2.0), ("robust", -0.548587, 1.813262)],
)
def test_dpop_and_nll_combine_with_every_loss(loss: Loss, own: float, pooled: float) -> None:
    config = TrainConfig(
        loss=loss, label_noise=0.25, alpha=0.75, beta=0.5, dpop_lambda=2.0, nll_weight=0.1
    )
    terms = p_dpo(logps(-10, -14), logps(-12, -13), logps(-11, -12), tokens(5, 7), config)
    # NLL: 0.1 · 10 / 5 = 0.2 and 0.1 · 12 / 5 = 0.24
    expected = 0.75 * (own + 0.2) + 0.25 * (pooled + 0.24)
    assert terms.loss.item() == pytest.approx(expected, abs=1e-5)


def test_average_logps_by_hand() -> None:
    # Per token, chosen of 4 and rejected of 2 tokens: policy −3 and −6, reference −2.5 and −5.
    # h = (−3 + 6) − (−2.5 + 5) = 0.5; DPOP 2 · (−2.5 + 3) = 1; NLL 0.1 · 3.
    config = TrainConfig(alpha=1.0, beta=2.0, dpop_lambda=2.0, nll_weight=0.1, average_logps=True)
    terms = p_dpo(logps(-12, -12), None, logps(-10, -10), tokens(4, 2), config)
    # −log σ(2 · (0.5 − 1)) = log(1 + e) = 1.313262
    assert terms.loss.item() == pytest.approx(1.313262 + 0.3, abs=1e-6)
    assert terms.margin.item() == pytest.approx(0.5)
    assert terms.generic_margin is None


def test_the_generic_term_may_weigh_nll_otherwise() -> None:
    # All log-probs those of the reference: both terms are log 2 and their own share of NLL 10 / 5.
    config = TrainConfig(alpha=0.5, nll_weight=0.1, nll_weight_generic=0.3)
    same = logps(-10, -14)
    terms = p_dpo(same, same, same, tokens(5, 5), config)
    assert terms.loss.item() == pytest.approx(math.log(2) + 0.5 * 0.2 + 0.5 * 0.6)


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
        tokens(5, 7),
        config,
    )
    own = math.log(1 + math.exp(-0.5 * 3)) + 0.1 * 10 / 5  # 0.20141 + 0.2
    pooled = math.log(1 + math.exp(-0.5 * -2)) + 0.1 * 12 / 5  # 1.31326 + 0.24
    assert terms.loss.item() == pytest.approx(0.75 * own + 0.25 * pooled, rel=1e-6)
    assert terms.loss.item() == pytest.approx(0.68938, abs=1e-5)
    assert terms.margin.item() == pytest.approx(3.0)
    assert terms.generic_margin is not None
    assert terms.generic_margin.item() == pytest.approx(0.0)
    assert terms.chosen_logp_change.item() == pytest.approx(0.2)  # (−10 + 11) / 5


def test_p_dpo_gradient_by_hand() -> None:
    # α = 1, no extras: dL/d(chosen) = −β σ(−β h), with h = 0 that is −β / 2.
    config = TrainConfig(alpha=1.0, beta=0.3, dpop_lambda=0.0, nll_weight=0.0)
    chosen = torch.tensor([-4.0], requires_grad=True)
    rejected = torch.tensor([-6.0], requires_grad=True)
    same = logps(-4, -6)
    terms = p_dpo(PairLogps(chosen, rejected), same, same, tokens(3, 3), config)
    terms.loss.sum().backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert chosen.grad.item() == pytest.approx(-0.15)
    assert rejected.grad.item() == pytest.approx(0.15)


def test_sum_per_row_leaves_an_absent_row_at_zero() -> None:
    sums = sum_per_row(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 2, 0]), 3)
    assert sums.tolist() == [5.0, 0.0, 2.0]
