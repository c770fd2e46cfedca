"""What a learning trial does, what it has found, and where it stands; plain data."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from backend.styles import load_styles
from benchmarks.learning_arms import Arm
from benchmarks.learning_records import ChoiceRecords
from trainer.batching import PairRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a trial does.

    Attributes:
        rules: the personas, opposed ones next to each other.
        per_round: choices of each persona between two rounds of training.
        rounds: how many.
        checkpoints: numbers of choices after which texts are judged.
        replay: older pairs per new pair in a round.
        shared: share of a round's pairs that everybody judges, made under e₀.
        varied: share of pairs whose sides follow wishes of two styles.
        own_adapters: also train one adapter per user.
        drafts: how many a judged text of a user or of pooled DPO is the best of.
        rounds_of_others: rounds without the first user, after the last one, that must not change
            what the first user is served.
        seed: of everything drawn.
    """

    rules: tuple[str, ...]
    per_round: int
    rounds: int
    checkpoints: tuple[int, ...]
    replay: float
    shared: float
    varied: float
    own_adapters: bool
    drafts: int
    rounds_of_others: int = 0
    seed: int


@dataclass(slots=True)
class Results:
    """What a trial found; plain data.

    Attributes:
        choices: one record per choice: user, nth of this user's, margins in nats by method and, as
            `<method>_taste`, what the choices before it said, log-odds in nats.
        judged: checkpoint → figures.
        oldest_user: win-rate of the first user's texts before and after rounds of others.
        train_s: seconds of training by method, round by round.
        ties: comparisons in which a persona had no preference.
    """

    choices: list[dict[str, Any]] = field(default_factory=list)
    judged: dict[str, Any] = field(default_factory=dict)
    oldest_user: dict[str, float] = field(default_factory=dict)
    train_s: dict[str, list[float]] = field(default_factory=dict)
    ties: int = 0


@dataclass(slots=True)
class State:
    """Where a trial stands between two rounds, so that it can go on in another process.

    Attributes:
        rounds: done.
        results: so far.
        rng: of prompts, styles and seeds.
        records: every user's choices.
        references: response_id → log π_ref, nats.
        pairs: trained on so far.
        asked: comparisons made.
        seen: user → prompts had.
        decided: user → choices made.
        arms: every method's numbers.
    """

    rng: random.Random
    arms: dict[str, Arm]
    rounds: int = 0
    results: Results = field(default_factory=Results)
    records: ChoiceRecords = field(default_factory=lambda: ChoiceRecords(load_styles()))
    references: dict[int, float] = field(default_factory=dict)
    pairs: list[PairRows] = field(default_factory=list)
    asked: int = 0
    seen: Counter[int | None] = field(default_factory=Counter)
    decided: Counter[int] = field(default_factory=Counter)
