"""What π_ref says of responses: cached from the base model, and under the styles of their users.

P-DPO's π_ref is the base model (arXiv 2402.05133). Where a user's vector holds something that was
not learnt from pairs, as the shares of styles do, that belongs to π_ref of the user's own term:
against the plain base model such a vector has margins of many nats before the first step, and what
keeps chosen responses likely (DPOP, NLL) would only undo the styles. Knows nothing of losses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from trainer.adapter import AttachedAdapter
from trainer.batching import PairRows, Row
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.scoring import response_logps
from trainer.types import Phase, Progress, ResponseTokens, RoundFailed
from trainer.user_models import UserModel

_ROWS = 8


@torch.no_grad()
def own_references(
    base: LanguageModel,
    adapter: AttachedAdapter,
    users: UserModel,
    groups: Sequence[Sequence[PairRows]],
    *,
    references: Mapping[int, float],
    config: TrainConfig,
) -> Mapping[int, float]:
    """response_id → log π_ref of the users' own terms, nats, of all pairs; without the adapter.

    Args:
        groups: pairs that are read together; none changes a bit of another's.
        references: what π_ref says without any user; taken where a user's is the same.

    Raises:
        RoundFailed: one response stands in pairs of two users.
    """
    own = dict(references)
    owners: dict[int, int] = {}
    for pairs in groups:
        vectors = {user: users.reference(user) for user in {p.pair.user_id for p in pairs}}
        rows: dict[int, tuple[Row, Tensor]] = {}
        for pair in pairs:
            user = pair.pair.user_id
            if (vector := vectors[user]) is None:
                continue
            for response, row in (
                (pair.pair.chosen, pair.chosen),
                (pair.pair.rejected, pair.rejected),
            ):
                number = response.response_id
                if owners.get(number, user) != user:
                    raise RoundFailed(f"response {number} has pairs of two users")
                if number not in owners:
                    owners[number] = user
                    rows[number] = row, vector
        if rows:
            with adapter.disabled():
                logps = response_logps(
                    base.model, *zip(*rows.values(), strict=True), max_tokens=config.forward_tokens
                )
            own.update(zip(rows, logps.tolist(), strict=True))
    return own


@torch.no_grad()
def base_references(
    base: LanguageModel,
    pairs: Sequence[PairRows],
    held_out: Sequence[PairRows],
    config: TrainConfig,
    report: Callable[[Progress], None],
) -> tuple[dict[int, float], dict[int, float]]:
    """(response_id → log π_ref for all, the same for those not known before); no adapter yet.

    Rows in one forward pass change the last bits of each other's values. So those of held-out
    pairs run apart: what is learnt is the same, bit for bit, whatever is held out.
    """
    known = {
        response.response_id: response.reference_logp_nats
        for response, _ in _responses([*pairs, *held_out])
        if response.reference_logp_nats is not None
    }
    learnt = {r.response_id: row for r, row in _responses(pairs)}
    apart = {r.response_id: row for r, row in _responses(held_out) if r.response_id not in learnt}
    rows = {of: row for of, row in (learnt | apart).items() if of not in known}
    fresh: dict[int, float] = {}
    for group in (learnt, apart):
        unknown = sorted(group.keys() & rows.keys(), key=lambda of: (rows[of].length, of))
        for start in range(0, len(unknown), _ROWS):
            report(Progress(phase=Phase.REFERENCE, step=len(fresh), steps=len(rows)))
            some = unknown[start : start + _ROWS]
            logps = response_logps(
                base.model,
                [rows[of] for of in some],
                [None] * len(some),
                max_tokens=config.forward_tokens,
            )
            fresh.update(zip(some, logps.tolist(), strict=True))
    return {**known, **fresh}, fresh


def _responses(pairs: Sequence[PairRows]) -> list[tuple[ResponseTokens, Row]]:
    """Every response with the row π_ref reads it as."""
    chosen = [(pair.pair.chosen, pair.reference_chosen) for pair in pairs]
    return chosen + [(pair.pair.rejected, pair.reference_rejected) for pair in pairs]
