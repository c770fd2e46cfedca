"""A round keeps what a user learnt only where it suits that user better than nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.trainer.conftest import opposed_pairs
from tests.trainer.rounds import KINDS, recipe_of, run
from tests.trainer.test_user_models import OWN
from trainer import artifacts
from trainer.config import TrainConfig
from trainer.language_model import LanguageModel
from trainer.types import RoundRequest

Request = Callable[..., RoundRequest]


@pytest.fixture(params=KINDS)
def recipe(request: pytest.FixtureRequest) -> TrainConfig:
    return recipe_of(request.param)


def test_what_suits_its_user_worse_than_nothing_is_unlearnt_and_the_rest_goes_live(
    base: LanguageModel, recipe: TrainConfig, round_request: Request, initial: Path, tokenizer
) -> None:
    """User 2 chooses the other way round now; a few slow steps do not teach that."""
    pairs = opposed_pairs(tokenizer)
    reversed_ones = tuple(
        replace(pair, chosen=pair.rejected, rejected=pair.chosen) if pair.user_id == 2 else pair
        for pair in pairs
    )
    first = run(base, round_request(pairs=pairs, config=replace(recipe, epochs=8)))
    slow = replace(
        recipe,
        epochs=1,
        learning_rate_adapter=1e-6,
        learning_rate_vector=1e-6,
        learning_rate_weights=1e-6,
    )
    output = initial.parent / "round-2"
    second = run(
        base,
        round_request(
            round_id=2,
            pairs=reversed_ones,
            parent=first.artifact,
            output=str(output),
            config=slow,
        ),
    )
    assert second.gate.figures["users_unlearnt"] == 1
    assert not [reason for reason in second.gate.reasons if "worse" in reason]
    own = load_file(output / artifacts.USER_VECTORS)[OWN[recipe.user_model]]
    assert own[0].any()
    assert not own[1].any()
    state = load_file(output / artifacts.TRAINER_STATE)
    assert not [name for name in state if name.startswith("vectors/user.2/")]
