"""The methods compared: each an adapter, a user model and an optimizer's state, trained in rounds.

personal   P-DPO: one adapter, a vector per user
pooled     DPO on everybody's pairs: one adapter, one vector, no user; both learn
own        one adapter and one vector per user, nothing shared (costs as much as there are users)

Pooled and own know one user each, `EVERYBODY`: all that is theirs learns by that user's term.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor, nn

from backend.engines.weights import factors, low_rank
from trainer.adapter import AttachedAdapter, attached, initial_adapter
from trainer.batching import PairRows, passes
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.learning import Learner
from trainer.references import own_references
from trainer.user_models import UserModel, initial_users, users_from_tensors
from trainer.user_vectors import UserVectors

PERSONAL, POOLED, OWN = "personal", "pooled", "own"
EVERYBODY = 1


@dataclass(frozen=True, slots=True)
class Arm:
    """What one method knows after a round."""

    adapter: dict[str, Tensor]
    users: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def untrained(base: LanguageModel, config: TrainConfig, directions: Tensor | None = None) -> Arm:
    """The state before the first round."""
    users = initial_users(base.model, base.tokenizer, config, directions)
    return Arm(initial_adapter(base.model, config), users.tensors(), {})


@contextmanager
def in_place(
    base: LanguageModel,
    arm: Arm,
    config: TrainConfig,
    learning: Sequence[int] = (),
    shares: Mapping[int, Tensor] | None = None,
) -> Iterator[tuple[AttachedAdapter, UserModel]]:
    """Attach the arm's adapter to the base model; afterwards the model is as it was."""
    users = users_from_tensors(config.user_model, arm.users, learning, base.device, shares)
    with attached(base.model, config, arm.adapter) as adapter:
        yield adapter, users


@contextmanager
def served(base: LanguageModel, arm: Arm, config: TrainConfig) -> Iterator[UserVectors]:
    """The arm's vectors, and its adapter merged as the engine merges it: for writing texts.

    Afterwards the model is as it was.
    """
    scale = config.lora_alpha / config.lora_rank
    plain: dict[str, Tensor] = {}
    try:
        for name, (a, b) in factors(arm.adapter).items():
            weight = _weight(base.model, name)
            plain[name] = weight.data
            delta = low_rank(a, b, scale, weight.device)
            weight.data = delta.add_(weight.data).to(weight.dtype)
        yield users_from_tensors(config.user_model, arm.users, (), base.device, None).vectors()
    finally:
        for name, data in plain.items():
            _weight(base.model, name).data = data


def _weight(model: nn.Module, name: str) -> Tensor:
    """Decoding replaces modules and puts others back: looked up anew each time."""
    weight = model.get_submodule(name).weight
    assert isinstance(weight, Tensor)
    return weight


def as_everybody(pairs: Sequence[PairRows]) -> list[PairRows]:
    """The same pairs as if one user had judged them all."""
    return [replace(rows, pair=replace(rows.pair, user_id=EVERYBODY)) for rows in pairs]


def train(
    base: LanguageModel,
    arm: Arm,
    pairs: Sequence[PairRows],
    references: Mapping[int, float],
    config: TrainConfig,
    *,
    seed: str,
    shares: Mapping[int, Tensor] | None = None,
) -> tuple[Arm, float]:
    """One round's optimizer steps; returns the new state and the seconds they took.

    Args:
        shares: how much of each style a user gets, of the styled user model.
    """
    started = time.perf_counter()
    learning = sorted({rows.pair.user_id for rows in pairs})
    with in_place(base, arm, config, learning, shares) as (adapter, users):
        own = own_references(base, adapter, users, [pairs], references=references, config=config)
        learner = Learner(
            base.model,
            adapter.parameters,
            users=users,
            references=references,
            own_references=own,
            config=config,
            state=arm.optimizer,
        )
        for _, batch, shared in passes(len(pairs), config, seed=seed):
            learner.step([pairs[i] for i in batch], shared=shared)
        trained = Arm(adapter.tensors(), users.tensors(), learner.state())
    return trained, time.perf_counter() - started


def replayed(older: Sequence[PairRows], count: int, rng: random.Random) -> list[PairRows]:
    """Older pairs to train on again: users in turn, at random within a user."""
    pools: dict[int, list[PairRows]] = {}
    for pair in older:
        pools.setdefault(pair.pair.user_id, []).append(pair)
    for pool in pools.values():
        rng.shuffle(pool)
    picked: list[PairRows] = []
    while len(picked) < count and any(pools.values()):
        for pool in pools.values():
            if pool and len(picked) < count:
                picked.append(pool.pop())
    return picked
