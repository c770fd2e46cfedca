"""Optimizer steps of P-DPO on one adapter and one user model.

AdamW without weight decay in three groups, each with its rate: the adapter, what all users share,
what is one user's own. Knows nothing of epochs, files, gates or of where reference log-probs come
from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.batching import PairRows, by_budget
from trainer.config import TrainConfig
from trainer.losses import PairLogps, PairTokens, PDpoTerms, p_dpo
from trainer.scoring import response_logps
from trainer.types import RoundFailed
from trainer.user_models import UserModel

_STATE_PARTS = ("step", "exp_avg", "exp_avg_sq")


class Learner:
    """Takes steps and keeps the optimizer's state by parameter name.

    Args:
        model: the base model with the adapter attached.
        adapter: the adapter's parameters by checkpoint name.
        references: response_id → summed log π_ref, nats, of every response in the pairs.
        state: what `state` gave after the round before; parameters it does not know start afresh.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adapter: Mapping[str, nn.Parameter],
        *,
        users: UserModel,
        references: Mapping[int, float],
        config: TrainConfig,
        state: Mapping[str, Tensor],
    ) -> None:
        self._model = model
        self._adapter = list(adapter.values())
        self._users = users
        self._references = references
        self._config = config
        common, own = users.shared_parameters(), users.own_parameters()
        self._vectors = [*common.values(), *own.values()]
        self._common = [*self._adapter, *common.values()]
        self._parameters = {f"adapter/{name}": p for name, p in adapter.items()}
        self._parameters |= {f"vectors/{name}": p for name, p in (common | own).items()}
        self._optimizer = torch.optim.AdamW(
            [
                {"params": self._adapter, "lr": config.learning_rate_adapter},
                {"params": list(common.values()), "lr": config.learning_rate_vector},
                {"params": list(own.values()), "lr": config.learning_rate_own},
            ],
            weight_decay=0.0,
        )
        self._carried = dict(state)
        self._restore()

    def step(self, batch: Sequence[PairRows], *, shared: bool = True) -> dict[str, float]:
        """One optimizer step on the mean loss of `batch`; the step's figures, by name.

        Memory is bounded by `forward_tokens` (or one pair); the gradient is the whole batch's.

        Args:
            shared: whether the adapter and what users share learn too. Without, they do not change
                by one bit, their momentum rests, and each user's own term is computed alone.

        Raises:
            RoundFailed: loss or gradient is not finite; nothing was changed.
        """
        self._optimizer.zero_grad()
        # Without a gradient AdamW passes a parameter by, and nothing is computed for it.
        for parameter in self._common:
            parameter.requires_grad_(shared)
        groups = by_budget([p.tokens for p in batch], max_tokens=self._config.forward_tokens)
        parts = []
        for group in groups:
            terms = self._terms([batch[i] for i in group], shared)
            torch.autograd.backward(terms.loss.sum() / len(batch))
            parts.append(terms)
        figures = _figures(parts)
        if not math.isfinite(figures["loss"]):
            raise RoundFailed("the loss became infinite or undefined")
        norm = nn.utils.clip_grad_norm_(self._adapter, self._config.clip_norm_adapter)
        vector_norm = nn.utils.get_total_norm([p.grad for p in self._vectors if p.grad is not None])
        figures["grad_norm"] = float(norm)
        figures["grad_norm_vectors"] = float(vector_norm)
        if not math.isfinite(figures["grad_norm"] + figures["grad_norm_vectors"]):
            raise RoundFailed("the gradient became infinite or undefined")
        self._optimizer.step()
        return figures

    def state(self) -> dict[str, Tensor]:
        """AdamW's state, that of users who did not take part included; on the CPU."""
        tensors = dict(self._carried)
        for name, parameter in self._parameters.items():
            for part, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"{name}/{part}"] = value.detach().cpu().clone()
        return tensors

    def _restore(self) -> None:
        for name, parameter in self._parameters.items():
            parts = {part: self._carried.get(f"{name}/{part}") for part in _STATE_PARTS}
            if parts["step"] is not None:
                self._optimizer.state[parameter] = {
                    part: value.clone() if part == "step" else value.to(parameter.device, copy=True)
                    for part, value in parts.items()
                    if value is not None
                }

    def _terms(self, pairs: Sequence[PairRows], shared: bool) -> PDpoTerms:
        # One tensor per user and call: rows of one prompt and one prefix are computed together.
        own = {user: self._users.prefix(user) for user in {p.pair.user_id for p in pairs}}
        mine = [own[p.pair.user_id] for p in pairs]
        rows = [p.chosen for p in pairs] + [p.rejected for p in pairs]
        prefixes = mine + mine
        pooled = shared and self._config.alpha < 1
        if pooled:
            rows += [p.generic_chosen for p in pairs] + [p.generic_rejected for p in pairs]
            prefixes += [self._users.prefix(None)] * (2 * len(pairs))
        logps = response_logps(
            self._model, rows, prefixes, max_tokens=self._config.forward_tokens
        ).view(-1, len(pairs))
        return p_dpo(
            PairLogps(logps[0], logps[1]),
            PairLogps(logps[2], logps[3]) if pooled else None,
            reference_logps(pairs, self._references, logps.device),
            pair_tokens(pairs, logps.device),
            self._config,
        )


def pair_tokens(pairs: Sequence[PairRows], device: torch.device) -> PairTokens:
    """The lengths of each pair's two responses."""
    return PairTokens(
        torch.tensor([len(p.chosen.response_ids) for p in pairs], device=device),
        torch.tensor([len(p.rejected.response_ids) for p in pairs], device=device),
    )


def reference_logps(
    pairs: Sequence[PairRows], references: Mapping[int, float], device: torch.device
) -> PairLogps:
    """The cached log π_ref of each pair's two responses."""
    return PairLogps(
        torch.tensor([references[p.pair.chosen.response_id] for p in pairs], device=device),
        torch.tensor([references[p.pair.rejected.response_id] for p in pairs], device=device),
    )


def _figures(parts: Sequence[PDpoTerms]) -> dict[str, float]:
    margins = torch.cat([p.margin for p in parts])
    figures = {
        "loss": float(torch.cat([p.loss.detach() for p in parts]).mean()),
        "accuracy": float((margins > 0).float().mean()),
        "margin_nats": float(margins.mean()),
        "chosen_logp_change": float(torch.cat([p.chosen_logp_change for p in parts]).mean()),
    }
    generic = [p.generic_margin for p in parts if p.generic_margin is not None]
    if generic:
        figures["accuracy_generic"] = float((torch.cat(generic) > 0).float().mean())
    return figures
