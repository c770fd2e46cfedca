"""Optimizer steps of P-DPO on one adapter and one user model.

AdamW without weight decay in three groups, each with its rate: the adapter, what all users share,
what is one user's own. Knows nothing of epochs, files, gates or of where reference log-probs come
from.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from trainer.batching import PairRows, Row
from trainer.config import TrainConfig
from trainer.losses import PairLogps, PairTokens, term_loss
from trainer.packing import tree_tokens
from trainer.scoring import response_logps
from trainer.transfer import to_device
from trainer.types import RoundFailed
from trainer.user_models import UserModel

_STATE_PARTS = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, slots=True)
class Term:
    """One of a pair's two terms: the user's own, or the generic one where `user` is None.

    Attributes:
        weight: what the term counts in the pair's loss.
    """

    pair: PairRows
    user: int | None
    weight: float

    @property
    def rows(self) -> tuple[Row, Row]:
        """Chosen and rejected, as this term reads them."""
        if self.user is None:
            return self.pair.generic_chosen, self.pair.generic_rejected
        return self.pair.chosen, self.pair.rejected


@dataclass(frozen=True, slots=True)
class _Computed:
    """What the loss of some terms came to, detached; each field is (number of terms,)."""

    terms: Sequence[Term]
    loss: Tensor
    margin: Tensor
    chosen_logp_change: Tensor


class Learner:
    """Takes steps and keeps the optimizer's state by parameter name.

    Args:
        model: the base model with the adapter attached.
        adapter: the adapter's parameters by checkpoint name.
        references: response_id → summed log π_ref, nats, of every response in the pairs.
        own_references: the same for users' own terms (`trainer.references`); None: no different.
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
        own_references: Mapping[int, float] | None = None,
    ) -> None:
        self._model = model
        self._adapter = list(adapter.values())
        self._users = users
        self._references = references
        self._own_references = references if own_references is None else own_references
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
            fused=True,  # some hundred small tensors in one call
        )
        self._carried = dict(state)
        self._steps = 0
        for name in self._parameters:
            self._restore(name)

    def step(self, batch: Sequence[PairRows], *, shared: bool = True) -> dict[str, float]:
        """One optimizer step on the mean loss of `batch`; the step's figures, by name.

        Terms under one vector are computed together, as far as `forward_tokens` allows; the
        gradient is the whole batch's.

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
        terms = terms_of(batch, self._config, shared=shared, draw=self._draw(batch))
        parts = [
            self._backward(group, len(batch))
            for group in _together(terms, max_tokens=self._config.forward_tokens)
        ]
        norm = nn.utils.clip_grad_norm_(self._adapter, self._config.clip_norm_adapter)
        vector_norm = nn.utils.get_total_norm([p.grad for p in self._vectors if p.grad is not None])
        figures = _figures(parts, len(batch), norm, vector_norm)
        if not math.isfinite(figures["loss"]):
            raise RoundFailed("the loss became infinite or undefined")
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

    def forget(self, user_id: int) -> None:
        """Put a learning user's own numbers back to the start, and AdamW's state of them."""
        self._users.unlearn(user_id)
        name = f"vectors/user.{user_id}"
        self._optimizer.state.pop(self._parameters[name], None)
        for part in _STATE_PARTS:
            self._carried.pop(f"{name}/{part}", None)

    @torch.no_grad()
    def take_back(self, user_id: int, before: Tensor) -> None:
        """Put a learning user's own numbers, and AdamW's state of them, back to before the round.

        Args:
            before: the numbers, as `UserModel.own_parameters` has them.
        """
        name = f"vectors/user.{user_id}"
        self._parameters[name].copy_(before)
        self._optimizer.state.pop(self._parameters[name], None)
        self._restore(name)

    def _restore(self, name: str) -> None:
        parameter = self._parameters[name]
        parts = {part: self._carried.get(f"{name}/{part}") for part in _STATE_PARTS}
        if parts["step"] is not None:
            self._optimizer.state[parameter] = {
                part: value.to(parameter.device, copy=True)
                for part, value in parts.items()
                if value is not None
            }

    def _draw(self, batch: Sequence[PairRows]) -> float:
        """In [0, 1): which terms of this batch are taken, where they are sampled."""
        self._steps += 1
        pairs = [p.pair.pair_id for p in batch]
        return random.Random(f"{self._config.seed}/{self._steps}/{pairs}").random()  # noqa: S311

    def _backward(self, terms: Sequence[Term], batch_pairs: int) -> _Computed:
        """Add the gradient of some terms of a batch."""
        # One tensor per user and call: rows under one prefix share what they begin with.
        prefixes = {user: self._users.prefix(user) for user in {t.user for t in terms}}
        of_terms = [prefixes[term.user] for term in terms]
        chosen, rejected = zip(*(term.rows for term in terms), strict=True)
        logps = response_logps(
            self._model,
            [*chosen, *rejected],
            [*of_terms, *of_terms],
            max_tokens=self._config.forward_tokens,
        ).view(2, -1)
        policy, device = PairLogps(logps[0], logps[1]), logps.device
        pairs = [term.pair for term in terms]
        known = [self._references if t.user is None else self._own_references for t in terms]
        reference = reference_logps(pairs, known, device)
        tokens = pair_tokens(pairs, device)
        config = self._config
        nll = [config.nll_weight_of_generic if t.user is None else config.nll_weight for t in terms]
        losses, h = term_loss(policy, reference, tokens, config, to_device(nll, device))
        losses = losses * to_device([term.weight for term in terms], device)
        torch.autograd.backward(losses.sum() / batch_pairs)
        change = (policy.chosen - reference.chosen) / tokens.chosen
        return _Computed(terms, losses.detach(), h.detach(), change.detach())


def terms_of(
    batch: Sequence[PairRows], config: TrainConfig, *, shared: bool, draw: float
) -> list[Term]:
    """Which terms of the batch are computed, and what each counts.

    Sampled, a pair's own term is taken with probability α and the generic one otherwise, each with
    weight 1: α · t(u) + (1 − α) · t(u₀) on average. One draw decides for the whole batch, so that
    the share of own terms in it is α as nearly as can be.
    """
    alpha = config.alpha
    if not shared:
        return [Term(p, p.pair.user_id, 1.0) for p in batch]
    if not config.sample_terms:
        own = [Term(p, p.pair.user_id, alpha) for p in batch if alpha > 0]
        return own + [Term(p, None, 1 - alpha) for p in batch if alpha < 1]
    turns = [math.floor(draw + alpha * n) for n in range(len(batch) + 1)]
    return [
        Term(p, p.pair.user_id if turns[n + 1] > turns[n] else None, 1.0)
        for n, p in enumerate(batch)
    ]


def _together(terms: Sequence[Term], *, max_tokens: int) -> list[list[Term]]:
    """Terms in groups of at most `max_tokens` (or one term), those under one vector side by side.

    A group's forward pass is kept until its backward pass, so this bounds memory.
    """
    groups: list[list[Term]] = []
    for term in sorted(terms, key=lambda t: (t.user is not None, t.user or 0)):
        if groups and _tokens([*groups[-1], term]) <= max_tokens:
            groups[-1].append(term)
        else:
            groups.append([term])
    return groups


def _tokens(terms: Sequence[Term]) -> int:
    rows = [row for term in terms for row in term.rows]
    users = {term.user: torch.empty(0) for term in terms}
    return tree_tokens(rows, [users[term.user] for term in terms for _ in term.rows])


def pair_tokens(pairs: Sequence[PairRows], device: torch.device) -> PairTokens:
    """The lengths of each pair's two responses."""
    return PairTokens(
        to_device([len(p.chosen.response_ids) for p in pairs], device),
        to_device([len(p.rejected.response_ids) for p in pairs], device),
    )


def reference_logps(
    pairs: Sequence[PairRows], references: Sequence[Mapping[int, float]], device: torch.device
) -> PairLogps:
    """The cached log π_ref of each pair's two responses.

    Args:
        references: of each pair, where it is looked up: response_id → log π_ref.
    """
    both = list(zip(pairs, references, strict=True))
    return PairLogps(
        to_device([known[p.pair.chosen.response_id] for p, known in both], device),
        to_device([known[p.pair.rejected.response_id] for p, known in both], device),
    )


def _figures(
    parts: Sequence[_Computed], batch_pairs: int, norm: Tensor, vector_norm: Tensor
) -> dict[str, float]:
    """A step's figures, by name; on a GPU it is waited for once."""
    terms = [term for part in parts for term in part.terms]
    own = torch.tensor([term.user is not None for term in terms])
    sent = torch.cat(
        [
            *(part.loss for part in parts),
            *(part.margin for part in parts),
            *(part.chosen_logp_change for part in parts),
            *(one.detach().to(parts[0].loss.device).view(1) for one in (norm, vector_norm)),
        ]
    ).cpu()
    loss, margins, changes, norms = torch.split(sent, [*[len(terms)] * 3, 2])
    figures = {"loss": float(loss.sum()) / batch_pairs}
    if own.any():  # of a small batch, sampling may leave nothing but generic terms
        figures["accuracy"] = float((margins[own] > 0).float().mean())
        figures["margin_nats"] = float(margins[own].mean())
        figures["chosen_logp_change"] = float(changes[own].mean())
    if not own.all():
        figures["accuracy_generic"] = float((margins[~own] > 0).float().mean())
    figures["grad_norm"], figures["grad_norm_vectors"] = norms.tolist()
    return figures
