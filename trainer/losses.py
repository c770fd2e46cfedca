"""Response log-probs and the P-DPO loss: pure functions of tensors.

For user u, prompt x, chosen y⁺ and rejected y⁻, with u₀ the generic user (arXiv 2402.05133):

    h(u) = [log π(y⁺|x,u) − log π(y⁻|x,u)] − [log π_ref(y⁺|x) − log π_ref(y⁻|x)]        (1)
    d(u) = λ · max(0, log π_ref(y⁺|x) − log π(y⁺|x,u))          DPOP, arXiv 2402.13228  (2)
    t(u) = −log σ(β · (h(u) − d(u))) − w · log π(y⁺|x,u) / |y⁺|                         (3)
    L    = α · t(u) + (1 − α) · t(u₀), mean over pairs                                  (4)

Log-probs are summed over response tokens, in nats. Knows nothing of models, users or prompts.
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


@dataclass(frozen=True, slots=True)
class PDpoTerms:
    """The loss of B pairs and what it is made of; each field is (B,).

    Attributes:
        loss: L of equation (4), nats.
        margin: h(u), nats.
        generic_margin: h(u₀), nats.
        chosen_logp_change: (log π(y⁺|x,u) − log π_ref(y⁺|x)) / |y⁺|, nats per token.
    """

    loss: Tensor
    margin: Tensor
    generic_margin: Tensor
    chosen_logp_change: Tensor


class _FrozenHeadLogps(torch.autograd.Function):
    """log softmax(h Wᵀ)[label] without keeping a (N, V) tensor.

    The head W is frozen, so the whole gradient is ∂/∂h = W[label] − softmax(h Wᵀ) W; it is taken
    chunk by chunk in the forward pass, while the logits are at hand.
    """

    @staticmethod
    def forward(  # noqa: PLR0917 - torch's calling convention
        ctx: torch.autograd.function.FunctionCtx,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        chunk: int,
    ) -> Tensor:
        logps = torch.empty(len(labels), dtype=torch.float32, device=hidden.device)
        wanted = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        slope = torch.empty_like(hidden) if wanted else hidden.new_empty(0)
        for start in range(0, len(labels), chunk):
            part = slice(start, start + chunk)
            logits = F.linear(hidden[part].to(weight.dtype), weight, bias).float()
            logits = logits.log_softmax(dim=-1)
            logps[part] = logits.gather(1, labels[part, None]).squeeze(1)
            if wanted:
                expected = logits.exp_().to(weight.dtype) @ weight
                slope[part] = (weight[labels[part]] - expected).to(hidden.dtype)
        ctx.save_for_backward(slope)
        return logps

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return slope * grad[:, None].to(slope.dtype), None, None, None, None


def token_logps(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, *, chunk: int = 512
) -> Tensor:
    """log π(label | hidden) of each position under a frozen head, in nats.

    Args:
        hidden: (N, H) last hidden states, each the one *before* its label.
        weight, bias: the head, (V, H) and (V,) or None; they get no gradient.
        labels: (N,) token ids.
        chunk: positions per logits block; bounds memory at chunk · V floats.

    Returns:
        (N,) fp32; differentiable (once) in `hidden`.
    """
    logps: Tensor = _FrozenHeadLogps.apply(hidden, weight, bias, labels, chunk)  # type: ignore[no-untyped-call]
    return logps


def sum_per_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Sum (N,) `values` into (count,) by the row index (N,) each belongs to."""
    return torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, rows, values)


def margin(policy: PairLogps, reference: PairLogps) -> Tensor:
    """h, equation (1): (B,) implicit-reward margin before β, in nats."""
    return (policy.chosen - policy.rejected) - (reference.chosen - reference.rejected)


def dpop_penalty(policy: PairLogps, reference: PairLogps, dpop_lambda: float) -> Tensor:
    """d, equation (2): (B,) nats ≥ 0; grows as the chosen response becomes less likely."""
    return dpop_lambda * (reference.chosen - policy.chosen).clamp(min=0)


def dpo_loss(policy: PairLogps, reference: PairLogps, beta: float) -> Tensor:
    """−log σ(β h): (B,) nats; log 2 where the policy is the reference."""
    return -F.logsigmoid(beta * margin(policy, reference))


def p_dpo(
    personal: PairLogps,
    generic: PairLogps,
    reference: PairLogps,
    chosen_tokens: Tensor,
    config: TrainConfig,
) -> PDpoTerms:
    """Equation (4) for B pairs.

    Args:
        personal, generic, reference: log-probs under u, under u₀ and under π_ref.
        chosen_tokens: (B,) number of tokens of y⁺.
    """

    def term(policy: PairLogps) -> Tensor:
        penalized = margin(policy, reference) - dpop_penalty(policy, reference, config.dpop_lambda)
        nll = -policy.chosen / chosen_tokens
        return -F.logsigmoid(config.beta * penalized) + config.nll_weight * nll

    return PDpoTerms(
        loss=config.alpha * term(personal) + (1 - config.alpha) * term(generic),
        margin=margin(personal, reference),
        generic_margin=margin(generic, reference),
        chosen_logp_change=(personal.chosen - reference.chosen) / chosen_tokens,
    )
