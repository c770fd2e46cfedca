"""Response log-probs and the P-DPO loss: pure functions of tensors.

For user u, prompt x, chosen y⁺ and rejected y⁻, with u₀ the generic user (arXiv 2402.05133):

    h(u) = [log π(y⁺|x,u) − log π(y⁻|x,u)] − [log π_ref(y⁺|x) − log π_ref(y⁻|x)]        (1)
    d(u) = λ · max(0, log π_ref(y⁺|x) − log π(y⁺|x,u))          DPOP, arXiv 2402.13228  (2)
    t(u) = ℓ(h(u) − d(u)) − w · log π(y⁺|x,u) / |y⁺|                                    (3)
    L    = α · t(u) + (1 − α) · t(u₀), mean over pairs                                  (4)

ℓ is chosen by `TrainConfig.loss`:

    sigmoid  −log σ(β·h)                                        DPO, arXiv 2305.18290   (5)
    ipo      (h − 1/(2β))²                                      IPO, arXiv 2310.12036   (6)
    robust   ((1−ε)·ℓ₅(h) − ε·ℓ₅(−h)) / (1−2ε)                  rDPO, arXiv 2403.00409  (7)
    hinge    max(0, 1 − β·h)                                    SLiC, arXiv 2305.10425  (8)

Log-probs are in nats: summed over response tokens, or with `average_logps` their mean per token.
Knows nothing of models, users or prompts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.config import TrainConfig


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Summed log-probs of both responses of B pairs, in nats; each field is (B,)."""

    chosen: Tensor
    rejected: Tensor

    def per_token(self, tokens: PairTokens) -> PairLogps:
        """Mean log-probs per response token, in nats."""
        return PairLogps(self.chosen / tokens.chosen, self.rejected / tokens.rejected)


@dataclass(frozen=True, slots=True)
class PairTokens:
    """How many tokens both responses of B pairs have; each field is (B,)."""

    chosen: Tensor
    rejected: Tensor


@dataclass(frozen=True, slots=True)
class PDpoTerms:
    """The loss of B pairs and what it is made of; each field is (B,).

    Attributes:
        loss: L of equation (4), nats.
        margin: h(u), nats (per token with `average_logps`).
        generic_margin: h(u₀), likewise; None where α = 1 left it out.
        chosen_logp_change: (log π(y⁺|x,u) − log π_ref(y⁺|x)) / |y⁺|, nats per token.
    """

    loss: Tensor
    margin: Tensor
    generic_margin: Tensor | None
    chosen_logp_change: Tensor


def sum_per_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum (N,) `values` into (count,) by the row index (N,) each belongs to."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, rows, values)


def margin(policy: PairLogps, reference: PairLogps) -> Tensor:
    """h, equation (1): (B,) implicit-reward margin before β, in nats."""
    return (policy.chosen - policy.rejected) - (reference.chosen - reference.rejected)


def dpop_penalty(policy: PairLogps, reference: PairLogps, dpop_lambda: float) -> Tensor:
    """d, equation (2): (B,) nats ≥ 0; grows as the chosen response becomes less likely."""
    return dpop_lambda * (reference.chosen - policy.chosen).clamp(min=0)


def sigmoid_loss(h: Tensor, beta: float) -> Tensor:
    """−log σ(β h), equation (5): (B,) margins in nats → (B,) losses; log 2 at h = 0."""
    return -F.logsigmoid(beta * h)


def ipo_loss(h: Tensor, beta: float) -> Tensor:
    """(h − 1/(2β))², equation (6): (B,) → (B,); draws the margin to 1/(2β) and no further."""
    return (h - 1 / (2 * beta)).square()


def robust_loss(h: Tensor, beta: float, label_noise: float) -> Tensor:
    """Equation (7): (B,) → (B,); its mean is that of (5) without noise where ε of labels are wrong.

    Args:
        label_noise: ε, 0 ≤ ε < 0.5; 0 gives (5).
    """
    right, wrong = sigmoid_loss(h, beta), sigmoid_loss(-h, beta)
    return ((1 - label_noise) * right - label_noise * wrong) / (1 - 2 * label_noise)


def hinge_loss(h: Tensor, beta: float) -> Tensor:
    """max(0, 1 − β h), equation (8): (B,) → (B,); 0 from the margin 1/β on."""
    return (1 - beta * h).clamp(min=0)


def preference_loss(h: Tensor, config: TrainConfig) -> Tensor:
    """ℓ(h) of the recipe's kind, equations (5) to (8): (B,) margins in nats → (B,) losses."""
    if config.loss == "ipo":
        return ipo_loss(h, config.beta)
    if config.loss == "robust":
        return robust_loss(h, config.beta, config.label_noise)
    if config.loss == "hinge":
        return hinge_loss(h, config.beta)
    return sigmoid_loss(h, config.beta)


def recipe_margin(
    policy: PairLogps, reference: PairLogps, tokens: PairTokens, config: TrainConfig
) -> Tensor:
    """h as the recipe takes it, (B,) nats: of sums, or per token with `average_logps`."""
    if config.average_logps:
        return margin(policy.per_token(tokens), reference.per_token(tokens))
    return margin(policy, reference)


def term_loss(
    policy: PairLogps,
    reference: PairLogps,
    tokens: PairTokens,
    config: TrainConfig,
    nll_weight: Tensor | float,
) -> tuple[Tensor, Tensor]:
    """t(u) of equation (3) and h(u), each (B,), under one user vector per pair.

    Args:
        policy, reference: summed log-probs under u and under π_ref.
        tokens: lengths of both responses.
        nll_weight: w, one for all pairs or (B,).
    """
    h = recipe_margin(policy, reference, tokens, config)
    penalty = dpop_penalty(policy, reference, config.dpop_lambda)
    if config.average_logps:
        penalty = penalty / tokens.chosen
    nll = -policy.chosen / tokens.chosen
    return preference_loss(h - penalty, config) + nll_weight * nll, h


def p_dpo(
    personal: PairLogps,
    generic: PairLogps | None,
    reference: PairLogps,
    tokens: PairTokens,
    config: TrainConfig,
) -> PDpoTerms:
    """Equation (4) for B pairs, whole. `trainer.learning` takes the same term by term.

    Args:
        personal, generic, reference: summed log-probs under u, under u₀ and under π_ref; `generic`
            is None where users learn alone, by their own term.
        tokens: lengths of both responses.
    """
    loss, h = term_loss(personal, reference, tokens, config, config.nll_weight)
    generic_h = None
    if generic is not None:
        weight = config.nll_weight_of_generic
        pooled, generic_h = term_loss(generic, reference, tokens, config, weight)
        loss = config.alpha * loss + (1 - config.alpha) * pooled
    return PDpoTerms(
        loss=loss,
        margin=h.detach(),
        generic_margin=None if generic_h is None else generic_h.detach(),
        chosen_logp_change=((personal.chosen - reference.chosen) / tokens.chosen).detach(),
    )
