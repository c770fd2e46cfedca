"""Settings and files a start takes or refuses: style directions, the recipe, older versions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from backend.errors import ConfigurationError
from backend.local_model import check_recipe, style_directions, train_config
from backend.settings import Settings, load_settings
from backend.styles import load_styles, with_directions
from tests.backend.house import House
from trainer.config import TrainConfig
from trainer.directions import write_directions

IDENTITY = "5e" * 32
NAMES = [style.name for style in with_directions(load_styles())]
MADE, SHIPPED = torch.ones(len(NAMES), 2, 4), torch.zeros(len(NAMES), 2, 4)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"ATTUNE_USER_MODEL": "styled", "ATTUNE_CACHE_DIR": str(tmp_path)})


def test_directions_made_here_go_before_those_that_are_shipped(
    settings: Settings, tmp_path: Path
) -> None:
    shipped = tmp_path / "shipped"
    assert style_directions(settings, IDENTITY, shipped=shipped) is None
    write_directions(shipped, SHIPPED, NAMES, IDENTITY)
    found = style_directions(settings, IDENTITY, shipped=shipped)
    assert found is not None
    assert torch.equal(found, SHIPPED)
    write_directions(settings.directions_dir, MADE, NAMES, IDENTITY)
    found = style_directions(settings, IDENTITY, shipped=shipped)
    assert found is not None
    assert torch.equal(found, MADE)


@pytest.mark.parametrize("names", [NAMES[::-1], NAMES[1:], [*NAMES, "with examples"]])
def test_directions_of_other_styles_are_to_be_made_again(
    settings: Settings, names: list[str]
) -> None:
    write_directions(settings.directions_dir, MADE, names, IDENTITY)
    with pytest.raises(ConfigurationError, match=r"other styles .* make it again") as caught:
        style_directions(settings, IDENTITY)
    assert "backend.direction_command" in str(caught.value)


def test_a_damaged_file_stops_only_who_needs_it(settings: Settings) -> None:
    path = write_directions(settings.directions_dir, MADE, NAMES, IDENTITY)
    path.write_bytes(b"no tensors")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        style_directions(settings, IDENTITY)
    for user_model in ("individual", "cluster"):
        other = settings.model_copy(update={"user_model": user_model})
        assert style_directions(other, IDENTITY) is None


def test_the_recipe_goes_with_the_user_model_unless_told_otherwise(settings: Settings) -> None:
    """Of the styled one nothing shared learns: what others choose changes nothing for anybody."""
    usual = train_config(load_settings({}))
    assert (usual.epochs, usual.own_epochs, usual.learning_rate_vector) == (2, 0, 2e-3)
    styled = train_config(settings)
    assert styled.own_epochs == styled.epochs == 1
    assert styled.learning_rate_vector < usual.learning_rate_vector
    assert styled.for_vector_round().own_epochs == styled.for_vector_round().epochs == 1
    told = {"ATTUNE_ROUND_EPOCHS": "3", "ATTUNE_LEARNING_RATE_VECTOR": "0.01"}
    changed = train_config(load_settings({"ATTUNE_USER_MODEL": "styled"} | told))
    assert (changed.epochs, changed.own_epochs, changed.learning_rate_vector) == (3, 3, 0.01)


def test_versions_of_another_form_are_found_at_the_start(make_house: Callable[..., House]) -> None:
    house = make_house(config=TrainConfig())
    assert house.engine.live_version is not None
    path = house.engine.live_version.path
    check_recipe(load_settings({"ATTUNE_ROUND_EPOCHS": "5"}), path)
    other = load_settings({"ATTUNE_USER_MODEL": "cluster"})
    with pytest.raises(ConfigurationError, match=r"user_model is cluster, .* another data folder"):
        check_recipe(other, path)
