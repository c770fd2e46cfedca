"""Recipes as they are kept beside versions."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.trainer.conftest import CONFIG
from trainer.config import GateConfig, TrainConfig


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
