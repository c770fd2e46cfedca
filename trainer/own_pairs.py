"""What became of the pairs a round was trained on: they must suit their users better than before.

Read before the first step and after the last one, and then also without what was learnt for their
user. Knows nothing of bounds and verdicts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trainer.adapter import AttachedAdapter
from trainer.batching import PairRows, ending
from trainer.config import TrainConfig
from trainer.gate import FEW_PAIRS, RoundPair
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


@dataclass(frozen=True, slots=True)
class OwnPairs:
    """A round's `examined` pairs as they are read, each under its user's vector.

    Attributes:
        before: under the parent's, with the candidate's style shares.
        now: under the candidate's.
        unlearnt: under that without what was learnt for the user.
    """

    pairs: Sequence[PairRows]
    before: Sequence[PairReading]
    now: Sequence[PairReading]
    unlearnt: Sequence[PairReading]

    def misfits(self) -> tuple[int, ...]:
        """Users whom, over a few pairs at least, what was learnt suits worse than nothing."""
        rises: dict[int, list[float]] = {}
        for rows, own, none in zip(self.pairs, self.now, self.unlearnt, strict=True):
            rises.setdefault(rows.pair.user_id, []).append(own.loss_nats - none.loss_nats)
        return tuple(u for u, rise in rises.items() if len(rise) >= FEW_PAIRS and sum(rise) > 0)

    def without(self, users: Collection[int]) -> OwnPairs:
        """The same once nothing is left of what these users learnt."""
        now = [
            none if rows.pair.user_id in users else own
            for rows, own, none in zip(self.pairs, self.now, self.unlearnt, strict=True)
        ]
        return replace(self, now=now)


def read_own_pairs(
    base: LanguageModel,
    users: UserModel,
    pairs: Sequence[PairRows],
    before: Sequence[PairReading],
    *,
    references: Mapping[int, float],
    config: TrainConfig,
) -> OwnPairs:
    """The pairs under the candidate, beside how the parent read them."""
    vectors = {user: users.unlearnt(user) for user in {p.pair.user_id for p in pairs}}
    return OwnPairs(
        pairs,
        before,
        now=own_readings(base, users, pairs, references, config),
        unlearnt=pair_readings(base, vectors, pairs, references, config),
    )


def round_pairs(
    base: LanguageModel,
    adapter: AttachedAdapter,
    generic: Tensor,
    own: OwnPairs,
    config: TrainConfig,
) -> tuple[RoundPair, ...]:
    """What the gate judges of the round's own pairs; `generic` is e₀, (P, H)."""
    shared = _shared_end_changes(base, adapter, generic, own.pairs, config)
    read = zip(own.pairs, own.before, own.now, own.unlearnt, strict=True)
    return tuple(
        RoundPair(
            rows.pair.user_id,
            parent_nats=was.loss_nats,
            own_nats=now.loss_nats,
            unlearnt_nats=none.loss_nats,
            chosen_logp_change=now.chosen_logp_change,
            end_logp_change=_end_logp_change(now, none, shared.get(index)),
        )
        for index, (rows, was, now, none) in enumerate(read)
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
