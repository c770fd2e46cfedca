"""Settings and a base model → the engine, the recipe and the trainer process's arguments.

Knows nothing of databases, pages and threads.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from backend.base_model import BaseModel
from backend.engines.local import LocalEngine
from backend.errors import ConfigurationError
from backend.settings import Settings
from backend.styles import load_styles, with_directions
from trainer.artifacts import read_recipe
from trainer.config import TrainConfig, recipe_for
from trainer.directions import read_directions
from trainer.language_model import load_language_model
from trainer.sharing import SharedModel, on_one_gpu

_SHIPPED = Path(__file__).parent / "data"


def make_local_engine(
    settings: Settings, model: BaseModel
) -> tuple[LocalEngine, SharedModel | None]:
    """Load the model into an engine.

    Returns:
        The engine, and the base model for a trainer process on the same GPU, where there is one.

    Raises:
        ConfigurationError: the model cannot be loaded, or its style directions cannot be used.
    """
    directions = style_directions(settings, model.identity)
    try:
        base = load_language_model(
            model.path, model.identity, device=settings.device, dtype=settings.dtype
        )
        # Before the engine takes the model over and exchanges weights in it.
        shared = SharedModel(base.model) if _trains_beside(settings, base.device) else None
        engine = LocalEngine(
            base,
            max_batch=settings.max_batch,
            threads=settings.resolved_engine_threads,
            config=train_config(settings),
            directions=directions,
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise ConfigurationError(f"cannot load the model {settings.model}: {why}") from error
    return engine, shared


def _trains_beside(settings: Settings, serving: torch.device) -> bool:
    """Whether a trainer process would hold a second copy of the weights on the serving GPU."""
    return settings.trainer and on_one_gpu(serving, settings.trainer_device)


def with_user_model(settings: Settings, identity: str, begun: TrainConfig | None) -> Settings:
    """`auto` made up: what was begun goes on, else `styled` where there are style directions.

    Args:
        begun: recipe of the version to go on from; None: there is none.

    Raises:
        ConfigurationError: there are directions, but they cannot be used.
    """
    if settings.user_model != "auto":
        return settings
    if begun is not None:
        # Directions may have come since; versions keep the form they have.
        return settings.model_copy(update={"user_model": begun.user_model})
    styled = settings.model_copy(update={"user_model": "styled"})
    if style_directions(styled, identity) is not None:
        return styled
    return settings.model_copy(update={"user_model": "individual"})


def style_directions(
    settings: Settings, identity: str, *, shipped: Path = _SHIPPED
) -> Tensor | None:
    """(K, P, H) of Attune's styles, made on this machine or else shipped; None: there are none.

    Read for the styled user model only: no other is kept from starting by a damaged file.

    Raises:
        ConfigurationError: a file cannot be read, or is of another model or of other styles.
    """
    if settings.user_model != "styled":
        return None
    names = [style.name for style in with_directions(load_styles())]
    try:
        made = read_directions(settings.directions_dir, identity, names)
        return made if made is not None else read_directions(shipped, identity, names)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the style directions cannot be used: {error} "
            "(`python -m backend.direction_command` makes them)"
        ) from error


def train_config(settings: Settings) -> TrainConfig:
    """The recipe of rounds; of `auto` that of the individual user model (see `with_user_model`)."""
    asked = {
        "epochs": settings.round_epochs,
        "learning_rate_vector": settings.learning_rate_vector,
    }
    return recipe_for(
        "individual" if settings.user_model == "auto" else settings.user_model,
        clusters=settings.clusters,
        loss=settings.loss,
        label_noise=settings.label_noise,
        learning_rate_adapter=settings.learning_rate_adapter,
        **{name: value for name, value in asked.items() if value is not None},
    )


def check_recipe(settings: Settings, version: Path) -> None:
    """Make sure that rounds can go on from the version in this directory.

    Found at the start, not hours later in the first round, when choices have been made for it.

    Raises:
        ConfigurationError: it was made with settings that give versions another form.
    """
    why = train_config(settings).misfit(read_recipe(version))
    if why is not None:
        raise ConfigurationError(f"the settings do not fit the versions in the data folder: {why}")


def trainer_arguments(settings: Settings, model: BaseModel) -> list[str]:
    """Command-line arguments of the trainer process."""
    return [
        *("--model", str(model.path), "--identity", model.identity),
        *("--device", settings.trainer_device, "--dtype", settings.dtype),
        *("--threads", str(settings.trainer_threads), "--nice", str(settings.trainer_nice)),
    ]
