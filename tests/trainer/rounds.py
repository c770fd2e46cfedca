"""What tests of whole rounds share."""

from __future__ import annotations

from dataclasses import replace

from tests.trainer.conftest import CONFIG
from trainer.config import TrainConfig, UserModelKind
from trainer.language_model import LanguageModel
from trainer.probes import BaseTexts
from trainer.round import run_round
from trainer.types import Progress, RoundRequest, RoundResult

KINDS: tuple[UserModelKind, ...] = ("individual", "cluster", "styled")


def run(base: LanguageModel, request: RoundRequest, seen: list[Progress] | None = None):
    reports: list[Progress] = [] if seen is None else seen
    return run_round(base, request, reports.append, BaseTexts())


def recipe_of(kind: UserModelKind) -> TrainConfig:
    """What rounds with this user model are tested with."""
    return replace(CONFIG, user_model=kind, clusters=6, learning_rate_weights=0.5)


def epoch_means(result: RoundResult, name: str) -> list[float]:
    epochs = sorted({figures["epoch"] for figures in result.curve})
    return [
        sum(f[name] for f in result.curve if f["epoch"] == epoch)
        / sum(f["epoch"] == epoch for f in result.curve)
        for epoch in epochs
    ]
