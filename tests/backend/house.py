"""A whole house on a tiny random model: real engine, real trainer process, either database."""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from backend import prompts
from backend.comparisons import Desk
from backend.engines.base import Sampling
from backend.engines.local import LocalEngine
from backend.insights import Insights
from backend.making import Maker
from backend.plans import Shares
from backend.profiles import Profiles
from backend.styles import load_styles, with_directions
from backend.training import Training
from backend.versions import Versions
from db.models import Round, RoundPair, User
from db.session import Database
from tests.conftest import Clock
from trainer.config import GateConfig, TrainConfig

IDENTITY = "1d" * 32
CONFIG = TrainConfig(
    prefix_tokens=4,
    epochs=1,
    lora_rank=4,
    lora_alpha=8,
    gate=GateConfig(
        probe_prompts=1,
        probe_users=1,
        probe_new_tokens=8,
        max_nll_rise_nats=100.0,
        doubtful_nll_rise_nats=100.0,
        max_drift_nats=100.0,
        max_own_over_unlearnt_nats=100.0,  # one pass over four pairs of noise proves nobody right
    ),
)
LIMIT_S = 120.0


def trainer_arguments(model_path: Path) -> list[str]:
    return ["--model", str(model_path), "--identity", IDENTITY, "--threads", "1", "--nice", "0"]


@dataclass
class House:
    database: Database
    desk: Desk
    engine: LocalEngine
    versions: Versions
    training: Training
    insights: Insights
    clock: Clock
    folder: Path
    user: int

    def choose(self, count: int) -> None:
        """`count` choices by the user, A and B in turn."""
        for number in range(count):
            view = list(self.desk.stream(self.user))[-1]
            assert view.comparison_id is not None
            self.desk.choose(self.user, view.comparison_id, "ab"[number % 2])
            self.clock.forward(seconds=1)

    def round(self) -> Round:
        """One tick and the round it starts; the newest round's row."""
        self.training.tick()
        return self.end_of_round()

    def end_of_round(self) -> Round:
        """The newest round, once it is over."""
        self.training.wait(LIMIT_S)
        newest = self.newest_round()
        assert newest is not None
        return newest

    def newest_round(self) -> Round | None:
        with self.database.read() as session:
            return session.scalars(select(Round).order_by(Round.id.desc())).first()

    def phase(self) -> str:
        """Where the newest round is; empty when it is nowhere."""
        newest = self.newest_round()
        return newest.progress["phase"] if newest and newest.progress else ""

    def uses(self, round_id: int) -> list[str]:
        with self.database.read() as session:
            statement = select(RoundPair.use).where(RoundPair.round_id == round_id)
            return sorted(session.scalars(statement))

    @property
    def live(self) -> int:
        assert self.engine.live_version is not None
        return self.engine.live_version.version_id


def make_desk(
    database: Database, engine: LocalEngine, clock: Clock, shares: Shares, closing: ExitStack
) -> Desk:
    """Pairs in two styles are made along directions: a house that has those has one for each."""
    prompts.import_bank(database, clock())
    styles = load_styles() if shares.varied else ()
    maker = Maker(
        database,
        engine,
        sampling=Sampling(max_new_tokens=6),
        shares=shares,
        styles=styles,
        directions={style.name: nth for nth, style in enumerate(with_directions(styles))},
        clock=clock,
        rng=random.Random(3),
        profile_of=Profiles(database, used=True).in_prompt,
    )
    closing.callback(maker.close)
    closing.callback(engine.close)
    return Desk(
        database,
        maker,
        max_prompt_chars=100,
        clock=clock,
        rng=random.Random(4),
        pair_taken=lambda _user: None,
    )


def new_user(database: Database, clock: Clock) -> int:
    with database.write() as session:
        user = User(username="mia", username_key="mia", created_at=clock())
        session.add(user)
        session.flush()
        return user.id
