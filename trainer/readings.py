"""Pairs as one version reads them: their DPO loss, and whether their responses still end.

The gate compares two such readings: of held-out pairs the parent's and the candidate's, of the
round's own pairs also that without what was learnt. Knows nothing of bounds and verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.batching import PairRows, Row, ending
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.learning import pair_tokens, reference_logps
from trainer.losses import PairLogps, recipe_margin, sigmoid_loss
from trainer.scoring import response_logps
from trainer.user_models import UserModel


@dataclass(frozen=True, slots=True)
class PairReading:
    """One pair under one vector.

    Attributes:
        loss_nats: its DPO loss −log σ(β h).
        chosen_logp_change: of the chosen response, nats per token, against π_ref.
        chosen_end, rejected_end: log-prob of the response's end of turn; None where it has none.
    """

    loss_nats: float
    chosen_logp_change: float
    chosen_end: float | None
    rejected_end: float | None

    @property
    def end_logp(self) -> float | None:
        """Mean of the responses that ended; None where neither did."""
        known = [end for end in (self.chosen_end, self.rejected_end) if end is not None]
        return sum(known) / len(known) if known else None


def own_readings(
    base: LanguageModel,
    users: UserModel,
    pairs: Sequence[PairRows],
    references: Mapping[int, float],
    config: TrainConfig,
) -> list[PairReading]:
    """Each pair under its own user's vector."""
    vectors = {user: users.prefix(user) for user in {p.pair.user_id for p in pairs}}
    return pair_readings(base, vectors, pairs, references, config)


@torch.no_grad()
def pair_readings(
    base: LanguageModel,
    vectors: Mapping[int, Tensor],
    pairs: Sequence[PairRows],
    references: Mapping[int, float],
    config: TrainConfig,
) -> list[PairReading]:
    """Each pair under the vector (P, H) that `vectors` has for its user."""
    if not pairs:
        return []
    own = [vectors[p.pair.user_id] for p in pairs] * 2
    rows = [p.chosen for p in pairs] + [p.rejected for p in pairs]
    ended = [i for i, row in enumerate(rows) if has_ended(row, base)]
    logps = response_logps(
        base.model,
        [*rows, *(ending(rows[i]) for i in ended)],
        [*own, *(own[i] for i in ended)],
        max_tokens=config.forward_tokens,
    )
    policy = PairLogps(*logps[: len(rows)].view(2, -1))
    reference = reference_logps(pairs, [references] * len(pairs), logps.device)
    tokens = pair_tokens(pairs, logps.device)
    # One scale whatever the recipe's loss is, so that the gate's bounds keep their meaning.
    losses = sigmoid_loss(recipe_margin(policy, reference, tokens, config), config.beta)
    changes = (policy.chosen - reference.chosen) / tokens.chosen
    ends = dict(zip(ended, logps[len(rows) :].tolist(), strict=True))
    return [
        PairReading(loss, change, ends.get(i), ends.get(i + len(pairs)))
        for i, (loss, change) in enumerate(torch.stack([losses, changes]).T.tolist())
    ]


def has_ended(row: Row, base: LanguageModel) -> bool:
    """Whether a response has an end of turn, and a token before it."""
    return len(row.response_ids) > 1 and row.response_ids[-1] in base.stop_ids
