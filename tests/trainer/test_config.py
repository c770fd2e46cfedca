"""Recipes as they are kept beside versions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.trainer.conftest import CONFIG
from trainer.config import GateConfig, TrainConfig, UserModelKind, recipe_for


def test_recipes_of_earlier_releases_still_load() -> None:
    written = CONFIG.to_json()
    late = ("user_model", "clusters", "loss", "label_noise", "average_logps", "vector_epochs")
    early = {name: value for name, value in written.items() if name not in late}
    early["gate"] = {"max_repetition": 0.25, "a_bound_of_old": 1.0}
    config = TrainConfig.from_json(early)
    assert config == replace(CONFIG, gate=GateConfig(max_repetition=0.25))
    assert TrainConfig.from_json({}) == TrainConfig()
    with pytest.raises(ValueError, match="unknown training settings: betta"):
        TrainConfig.from_json({"betta": 1.0})


@pytest.mark.parametrize("wrong", [{"label_noise": 0.5}, {"clusters": 1}])
def test_a_recipe_out_of_range_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TrainConfig(**wrong)


def test_config_round_trips_through_json() -> None:
    config = replace(CONFIG, gate=GateConfig(max_repetition=0.25))
    again = type(config).from_json(json.loads(json.dumps(config.to_json())))
    assert again == config


@pytest.mark.parametrize(
    ("user_model", "asked", "epochs"),
    [
        ("individual", {}, (2, 0)),
        ("individual", {"epochs": 3, "own_epochs": 1}, (3, 1)),
        ("individual", {"own_epochs": 1}, (2, 1)),
        ("styled", {}, (1, 1)),
        ("styled", {"epochs": 3}, (3, 3)),
        ("styled", {"epochs": 3, "own_epochs": 1}, (3, 1)),
        ("styled", {"own_epochs": 0}, (1, 0)),
    ],
)
def test_a_recipe_is_what_was_measured_and_what_is_asked_for(
    user_model: UserModelKind, asked: dict[str, Any], epochs: tuple[int, int]
) -> None:
    recipe = recipe_for(user_model, **asked)
    assert (recipe.epochs, recipe.own_epochs) == epochs
