"""Accounts and whole houses to test with, on whichever database the test runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from torch import Tensor
from transformers import AutoTokenizer

from backend.administration import Administration
from backend.auth import Accounts, CurrentUser
from backend.engines.local import LocalEngine
from backend.insights import Insights
from backend.lease import Lease
from backend.plans import Shares
from backend.round_input import RoundLimits
from backend.styles import load_styles
from backend.trainer_process import TrainerProcess
from backend.training import Training
from backend.versions import Versions
from db.session import Database
from tests.backend.engines.making import tiny_model
from tests.backend.house import (
    CONFIG,
    IDENTITY,
    LIMIT_S,
    House,
    make_desk,
    new_user,
    trainer_arguments,
)
from tests.backend.people import GOOD, HOME, cheap
from tests.conftest import Clock
from trainer.config import TrainConfig
from trainer.language_model import load_language_model


@pytest.fixture
def accounts(database: Database, clock: Clock) -> Accounts:
    return Accounts(database, passwords=cheap(), clock=clock)


@pytest.fixture
def administration(database: Database, clock: Clock) -> Administration:
    return Administration(database, clock=clock)


@pytest.fixture
def admin(accounts: Accounts, administration: Administration) -> CurrentUser:
    token = administration.first_admin_invite()
    assert token is not None
    return accounts.sign_up("chief", GOOD, address=HOME, invite=token).user


@pytest.fixture(scope="session")
def model_path(embedded_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path, local_files_only=True)
    path = tmp_path_factory.mktemp("model")
    tiny_model(tokenizer).model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def trainer(model_path: Path) -> Iterator[TrainerProcess]:
    """One trainer process for all tests: it survives failed rounds."""
    process = TrainerProcess(trainer_arguments(model_path))
    yield process
    process.close()


@pytest.fixture
def make_house(
    database: Database, clock: Clock, tmp_path: Path, model_path: Path, trainer: TrainerProcess
) -> Iterator[Callable[..., House]]:
    with ExitStack() as closing:

        def make(
            *,
            config: TrainConfig = CONFIG,
            trainer: TrainerProcess = trainer,
            blind_share: float = 0.0,
            min_choices: int = 4,
            score_wait: timedelta = timedelta(0),
            fast_choices: int = 0,
            directions: Tensor | None = None,
        ) -> House:
            base = load_language_model(model_path, IDENTITY, device="cpu", dtype="float32")
            engine = LocalEngine(base, threads=1, config=config, directions=directions)
            versions = Versions(database, engine, tmp_path, clock=clock)
            shares = Shares(blind=blind_share, base=0.0, varied=float(directions is not None))
            desk = make_desk(database, engine, clock, shares, closing)
            versions.ensure_initial()
            versions.follow()
            training = Training(
                database,
                trainer,
                versions,
                Lease(database, "here:1:0", clock=clock),
                identity=IDENTITY,
                config=config,
                limits=RoundLimits(new=20, replay=4, user_cap=20),
                min_choices=min_choices,
                max_wait=timedelta(minutes=30),
                timeout_s=LIMIT_S,
                clock=clock,
                score_wait=score_wait,
                fast_choices=fast_choices,
                styles=load_styles(),
            )
            closing.callback(training.close)
            insights = Insights(
                database,
                identity=IDENTITY,
                live_version=lambda: engine.live_version.version_id if engine.live_version else 0,
                min_choices=min_choices,
            )
            user = new_user(database, clock)
            return House(
                database, desk, engine, versions, training, insights, clock, tmp_path, user
            )

        yield make
