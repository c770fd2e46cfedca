"""Settings and files a start takes or refuses: style directions, the recipe, older versions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch

from backend import local_model
from backend.base_model import BaseModel
from backend.engines.base import Condition, VersionRef
from backend.errors import ConfigurationError
from backend.local_model import (
    check_recipe,
    make_local_engine,
    style_directions,
    train_config,
    with_user_model,
)
from backend.settings import Settings, load_settings
from backend.styles import load_styles, with_directions
from backend.versions import begun_with
from tests.backend.engines.making import USERS, greedy, write_random_version
from tests.backend.house import House
from tests.backend.test_direction_command import ask_for_quantization
from trainer.config import TrainConfig
from trainer.directions import write_directions
from trainer.language_model import load_language_model
from trainer.sharing import attach

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


def test_left_alone_the_user_model_is_styled_where_there_are_directions(settings: Settings) -> None:
    auto = settings.model_copy(update={"user_model": "auto"})
    assert with_user_model(auto, IDENTITY, None).user_model == "individual"
    write_directions(settings.directions_dir, MADE, NAMES, IDENTITY)
    assert with_user_model(auto, IDENTITY, None).user_model == "styled"
    cluster = settings.model_copy(update={"user_model": "cluster"})
    assert with_user_model(cluster, IDENTITY, None) is cluster


def test_left_alone_the_user_model_stays_what_the_versions_began_with(
    settings: Settings, make_house: Callable[..., House]
) -> None:
    house = make_house(config=TrainConfig())
    write_directions(settings.directions_dir, MADE, NAMES, IDENTITY)
    begun = begun_with(house.database, house.engine.model_identity, house.folder)
    auto = settings.model_copy(update={"user_model": "auto"})
    assert with_user_model(auto, IDENTITY, begun).user_model == "individual"
    assert with_user_model(settings, IDENTITY, begun).user_model == "styled"  # said so: it is said
    shutil.rmtree(house.folder)
    assert begun_with(house.database, house.engine.model_identity, house.folder) is None


def test_the_recipe_goes_with_the_user_model_unless_told_otherwise(settings: Settings) -> None:
    """Of the styled one nothing shared learns: what others choose changes nothing for anybody."""
    usual = train_config(load_settings({}))
    assert (usual.epochs, usual.own_epochs, usual.learning_rate_vector) == (2, 0, 2e-3)
    styled = train_config(settings)
    assert styled.own_epochs == styled.epochs == 1
    assert (styled.learning_rate_vector, styled.nll_weight) == (4e-3, 0.0)
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


@pytest.mark.usefixtures("file_system")
def test_a_trainer_on_the_serving_gpu_attaches_what_the_engine_never_writes(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_model, "on_one_gpu", lambda _serving, training: training == "cpu")
    told = {"ATTUNE_DEVICE": "cpu", "ATTUNE_TRAINER_DEVICE": "cpu", "ATTUNE_DTYPE": "float32"}
    model = BaseModel(model_path, IDENTITY)
    fresh = load_language_model(model_path, IDENTITY, device="cpu", dtype="float32")
    write_random_version(fresh, tmp_path / "version", seed=1)

    engine, shared = make_local_engine(load_settings(told), model)
    with closing(engine):
        engine.swap(VersionRef(1, tmp_path / "version"))
        running = engine.generate([greedy("Where does tea grow?", Condition.PERSONAL, USERS[0])])
        assert shared is not None
        next(running.stream())
        handles = shared.handles()  # the version's weights are in place now
        assert handles is not None
        assert running.result(60.0)
        attached = attach(model_path, IDENTITY, handles).model.state_dict()
    assert attached.keys() == fresh.model.state_dict().keys()
    assert all(torch.equal(attached[name], p) for name, p in fresh.model.state_dict().items())

    engine, shared = make_local_engine(load_settings(told | {"ATTUNE_TRAINER": "false"}), model)
    with closing(engine):
        assert shared is None


def test_a_quantized_model_whose_library_is_missing_is_one_sentence(
    model_path: Path, tmp_path: Path
) -> None:
    quantized = ask_for_quantization(model_path, tmp_path / "quantized")
    with pytest.raises(ConfigurationError, match=r"cannot load the model .* requires") as caught:
        make_local_engine(load_settings({"ATTUNE_DEVICE": "cpu"}), BaseModel(quantized, IDENTITY))
    assert "\n" not in str(caught.value)
