"""What became of the pairs a round was trained on: they must suit their users better than before.

Knows nothing of bounds and verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from trainer.adapter import AttachedAdapter
from trainer.batching import PairRows, ending
from trainer.config import TrainConfig
from trainer.gate import RoundPair
from trainer.language_model import LanguageModel
from trainer.readings import PairReading, has_ended, own_readings, pair_readings
from trainer.scoring import response_logps
from trainer.types import PreferencePair
from trainer.user_models import UserModel

_USERS = 4
_PAIRS_EACH = 6


def examined(pairs: Sequence[PairRows]) -> list[PairRows]:
    """Of a round's pairs those that are read: evenly 6 of each of 4 users, those with most."""
    return [
        one
        for user in most_touched([p.pair for p in pairs], _USERS)
        for one in _spread([p for p in pairs if p.pair.user_id == user], _PAIRS_EACH)
    ]


def most_touched(pairs: Sequence[PreferencePair], most: int) -> list[int]:
    """Users of `pairs`, most pairs first, at most `most`."""
    counts = Counter(pair.user_id for pair in pairs)
    return sorted(counts, key=lambda user: (-counts[user], user))[:most]


def round_pairs(
    base: LanguageModel,
    adapter: AttachedAdapter,
    users: UserModel,
    *,
    pairs: Sequence[PairRows],
    before: Sequence[PairReading],
    references: Mapping[int, float],
    config: TrainConfig,
) -> tuple[RoundPair, ...]:
    """The pairs under their users' vectors as they are now, and without what was learnt for them.

    Args:
        pairs: those `examined`.
        before: the same ones as the parent read them, with the candidate's style shares.
    """
    now = own_readings(base, users, pairs, references, config)
    vectors = {user: users.unlearnt(user) for user in {p.pair.user_id for p in pairs}}
    unlearnt = pair_readings(base, vectors, pairs, references, config)
    shared = _shared_end_changes(base, adapter, users.prefix(None), pairs, config)
    return tuple(
        RoundPair(
            rows.pair.user_id,
            parent_nats=was.loss_nats,
            own_nats=own.loss_nats,
            unlearnt_nats=none.loss_nats,
            chosen_logp_change=own.chosen_logp_change,
            end_logp_change=_end_logp_change(own, none, shared.get(index)),
        )
        for index, (rows, was, own, none) in enumerate(
            zip(pairs, before, now, unlearnt, strict=True)
        )
    )


def _end_logp_change(
    own: PairReading, unlearnt: PairReading, of_what_is_shared: float | None
) -> float | None:
    if own.chosen_end is None or unlearnt.chosen_end is None or of_what_is_shared is None:
        return None
    return own.chosen_end - unlearnt.chosen_end + of_what_is_shared


@torch.no_grad()
def _shared_end_changes(
    base: LanguageModel,
    adapter: AttachedAdapter,
    generic: Tensor,
    pairs: Sequence[PairRows],
    config: TrainConfig,
) -> dict[int, float]:
    """log π(end of turn | e₀) − log π_ref(end of turn) by index, where chosen responses ended."""
    ended = [index for index, rows in enumerate(pairs) if has_ended(rows.chosen, base)]
    if not ended:
        return {}
    some = [pairs[index] for index in ended]
    now = response_logps(
        base.model,
        [ending(rows.generic_chosen) for rows in some],
        [generic] * len(some),
        max_tokens=config.forward_tokens,
    )
    with adapter.disabled():
        reference = response_logps(
            base.model,
            [ending(rows.reference_chosen) for rows in some],
            [None] * len(some),
            max_tokens=config.forward_tokens,
        )
    return dict(zip(ended, (now - reference).tolist(), strict=True))


def _spread(pairs: Sequence[PairRows], most: int) -> list[PairRows]:
    """At most `most` of `pairs`, evenly."""
    count = min(most, len(pairs))
    return [pairs[i * len(pairs) // count] for i in range(count)]
