"""Pairs never trained on, as one version reads them: what the gate compares with the parent's.

Knows nothing of bounds and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from trainer.batching import PairRows, Row, ending
from trainer.config import TrainConfig
from trainer.gate import HeldOutPair
from trainer.language_model import LanguageModel
from trainer.learning import pair_tokens, reference_logps
from trainer.losses import PairLogps, recipe_margin, sigmoid_loss
from trainer.scoring import response_logps
from trainer.user_models import UserModel


@dataclass(frozen=True, slots=True)
class HeldOutReading:
    """One held-out pair under one version: its DPO loss, and its end of turn.

    Attributes:
        end_logp: log-prob of the end of turn, mean of the responses that ended; None where
            neither did.
    """

    loss_nats: float
    end_logp: float | None


@torch.no_grad()
def held_out_readings(
    base: LanguageModel,
    users: UserModel,
    pairs: Sequence[PairRows],
    references: Mapping[int, float],
    config: TrainConfig,
) -> list[HeldOutReading]:
    """The DPO loss −log σ(β h(u)) and the end of turn of each pair under its user's vector."""
    if not pairs:
        return []
    vectors = {user: users.prefix(user) for user in {p.pair.user_id for p in pairs}}
    own = [vectors[p.pair.user_id] for p in pairs] * 2
    rows = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    ended = [i for i, row in enumerate(rows) if _ended(row, base)]
    logps = response_logps(
        base.model,
        [*rows, *(ending(rows[i]) for i in ended)],
        [*own, *(own[i] for i in ended)],
        max_tokens=config.forward_tokens,
    )
    policy = PairLogps(*logps[: len(rows)].view(2, -1))
    reference = reference_logps(pairs, references, logps.device)
    tokens = pair_tokens(pairs, logps.device)
    # One scale whatever the recipe's loss is, so that the gate's bounds keep their meaning.
    losses = sigmoid_loss(recipe_margin(policy, reference, tokens, config), config.beta)
    ends = dict(zip(ended, logps[len(rows) :].tolist(), strict=True))
    return [
        HeldOutReading(loss, _mean_of(ends.get(i), ends.get(i + len(pairs))))
        for i, loss in enumerate(losses.tolist())
    ]


def held_out_pair(rows: PairRows, before: HeldOutReading, now: HeldOutReading) -> HeldOutPair:
    """What became of one pair from the parent to the candidate."""
    change = None
    if now.end_logp is not None and before.end_logp is not None:
        change = now.end_logp - before.end_logp
    return HeldOutPair(rows.pair.user_id, before.loss_nats, now.loss_nats, change)


def _ended(row: Row, base: LanguageModel) -> bool:
    """Whether a response has an end of turn, and a token before it."""
    return len(row.response_ids) > 1 and row.response_ids[-1] in base.stop_ids


def _mean_of(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
