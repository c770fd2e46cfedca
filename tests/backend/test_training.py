"""Rounds from choice to live version: real trainer process, real engine, tiny random model."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from transformers import AutoTokenizer

from backend import prompts
from backend.comparisons import Desk
from backend.engines.base import Sampling
from backend.engines.local import LocalEngine
from backend.errors import Conflict, NotFound
from backend.insights import Insights
from backend.lease import LEASE_TTL, Lease
from backend.making import Maker
from backend.round_input import RoundLimits
from backend.trainer_process import TrainerProcess
from backend.training import Training
from backend.versions import Versions
from db.models import Promotion, Response, Round, RoundPair, TrainerLease, User, Version
from db.session import Database
from dev.waiting import wait_for
from tests.backend.engines.making import tiny_model
from tests.conftest import Clock
from trainer.config import GateConfig, TrainConfig
from trainer.language_model import load_language_model

IDENTITY = "1d" * 32
CONFIG = TrainConfig(
    prefix_tokens=4,
    epochs=1,
    lora_rank=4,
    lora_alpha=8,
    gate=GateConfig(probe_prompts=1, probe_users=1, probe_new_tokens=8, max_nll_rise_nats=20.0),
)
LIMIT_S = 120.0


@pytest.fixture(scope="module")
def model_path(embedded_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path, local_files_only=True)
    path = tmp_path_factory.mktemp("model")
    tiny_model(tokenizer).model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def trainer(model_path: Path) -> Iterator[TrainerProcess]:
    """One trainer process for all tests of this file: it survives failed rounds."""
    process = TrainerProcess(_arguments(model_path))
    yield process
    process.close()


def _arguments(model_path: Path) -> list[str]:
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


@pytest.fixture
def make_house(
    database: Database, clock: Clock, tmp_path: Path, model_path: Path, trainer: TrainerProcess
) -> Iterator[Callable[..., House]]:
    with ExitStack() as closing:

        def make(
            config: TrainConfig = CONFIG,
            trainer: TrainerProcess = trainer,
            blind_share: float = 0.0,
            min_choices: int = 4,
        ) -> House:
            base = load_language_model(model_path, IDENTITY, device="cpu", dtype="float32")
            engine = LocalEngine(base, threads=1, config=config)
            versions = Versions(database, engine, tmp_path, clock=clock)
            desk = _desk(database, engine, clock, blind_share, closing)
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
            )
            closing.callback(training.close)
            insights = Insights(
                database,
                identity=IDENTITY,
                live_version=lambda: engine.live_version.version_id if engine.live_version else 0,
                min_choices=min_choices,
            )
            user = _new_user(database, clock)
            return House(
                database, desk, engine, versions, training, insights, clock, tmp_path, user
            )

        yield make


def _desk(
    database: Database, engine: LocalEngine, clock: Clock, blind_share: float, closing: ExitStack
) -> Desk:
    prompts.import_bank(database, clock())
    maker = Maker(
        database,
        engine,
        sampling=Sampling(max_new_tokens=6),
        blind_share=blind_share,
        base_share=0.0,
        clock=clock,
        rng=random.Random(3),
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


def _new_user(database: Database, clock: Clock) -> int:
    with database.write() as session:
        user = User(username="mia", username_key="mia", created_at=clock())
        session.add(user)
        session.flush()
        return user.id


def test_choices_become_a_live_version_that_makes_the_next_responses(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    first = house.live
    house.choose(3)
    house.training.tick()
    house.training.wait(LIMIT_S)
    assert house.newest_round() is None
    assert house.insights.chip(house.user).until_next == "learns again in 1"

    house.choose(1)
    done = house.round()
    assert (done.status, done.reason) == ("promoted", None)
    assert house.uses(done.id) == ["new"] * 4
    assert house.live == first + 1
    chip = house.insights.chip(house.user)
    assert (chip.version, chip.choices, chip.until_next) == (first + 1, 4, "learns again in 4")
    view = list(house.desk.stream(house.user))[-1]
    with house.database.read() as session:
        made_by = session.scalars(
            select(Response.version_id).where(Response.comparison_id == view.comparison_id)
        ).all()
        references = session.scalars(
            select(Response.reference_logp_nats).where(Response.version_id == first)
        ).all()
    assert made_by == [first + 1, first + 1]
    assert len(references) == 8
    assert all(value is not None and value < 0 for value in references)

    house.training.tick()  # everything is consumed: no second round
    assert house.end_of_round().id == done.id

    house.desk.choose(house.user, view.comparison_id, "a")  # type: ignore[arg-type]
    house.choose(3)
    second = house.round()
    assert second.status == "promoted"
    assert house.uses(second.id) == ["new"] * 4 + ["replay"] * 4
    snapshot = house.insights.lab()
    assert snapshot.live_version == house.live
    assert [(r.status, r.new_pairs, r.replay_pairs) for r in snapshot.rounds] == [
        ("promoted", 4, 4),
        ("promoted", 4, 0),
    ]
    assert snapshot.users[0].consumed == 8
    assert len(house.insights.curve(second.id)) >= 2
    gate = house.insights.gate(second.id)
    assert gate is not None
    assert gate.passed


def test_blind_pairs_and_ties_are_counted_but_never_trained_on(
    make_house: Callable[..., House],
) -> None:
    house = make_house(blind_share=0.5, min_choices=8)
    house.choose(7)
    view = list(house.desk.stream(house.user))[-1]
    assert view.comparison_id is not None
    house.desk.choose(house.user, view.comparison_id, "tie")
    done = house.round()
    uses = house.uses(done.id)
    assert done.status == "promoted"
    assert uses.count("no_pair") == 1
    assert uses.count("held_out") >= 1
    assert len(uses) == 8
    assert house.insights.chip(house.user).until_next == "learns again in 8"


def test_nan_fails_the_round_and_consumes_nothing(make_house: Callable[..., House]) -> None:
    house = make_house(config=replace(CONFIG, learning_rate_adapter=1e30, epochs=3))
    live = house.live
    house.choose(4)
    failed = house.round()
    assert failed.status == "failed"
    assert failed.reason
    assert house.live == live
    assert house.insights.chip(house.user).until_next == "learns in a moment"
    assert not (house.folder / f"round-{failed.id:06d}").exists()
    assert house.round().id == failed.id  # not at once again
    house.clock.forward(seconds=16)
    assert house.round().id == failed.id + 1


def test_a_refused_round_is_kept_and_never_goes_live(make_house: Callable[..., House]) -> None:
    house = make_house(config=replace(CONFIG, gate=replace(CONFIG.gate, max_nll_rise_nats=-99.0)))
    live = house.live
    house.choose(4)
    refused = house.round()
    assert refused.status == "refused"
    assert refused.reason
    assert (house.folder / f"round-{refused.id:06d}" / "manifest.json").exists()
    assert house.live == live
    gate = house.insights.gate(refused.id)
    assert gate is not None
    assert not gate.passed
    assert house.insights.chip(house.user).until_next == "learns in a moment"


def test_a_trainer_that_dies_in_mid_round_fails_it_and_is_started_again(
    make_house: Callable[..., House], model_path: Path
) -> None:
    own = TrainerProcess(_arguments(model_path))
    try:
        house = make_house(config=replace(CONFIG, epochs=500), trainer=own)
        live = house.live
        house.choose(4)
        house.training.tick()
        wait_for(lambda: house.phase() == "train")
        assert own.pid is not None
        os.kill(own.pid, signal.SIGKILL)
        house.training.wait(LIMIT_S)
        failed = house.newest_round()
        assert failed.status == "failed"
        assert "signal 9" in str(failed.reason)
        assert house.live == live
        own.start()
        assert own.pid is not None
    finally:
        own.close()


def test_a_round_left_by_a_dead_process_is_buried_and_its_choices_are_learnt_from(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    house.choose(4)
    with house.database.write() as session:
        session.add(
            TrainerLease(id=1, holder="gone:1:0", epoch=7, expires_at=house.clock() + LEASE_TTL)
        )
        session.add(
            Round(
                status="running",
                lease_epoch=7,
                parent_id=house.live,
                config={},
                started_at=house.clock(),
            )
        )
    assert house.round().lease_epoch == 7  # somebody else's lease still holds
    house.clock.forward(seconds=LEASE_TTL.total_seconds() + 1)
    assert house.round().status == "failed"  # the lost one, buried; the next try waits a little
    house.clock.forward(seconds=16)
    done = house.round()
    assert (done.status, done.lease_epoch) == ("promoted", 8)
    with house.database.read() as session:
        lost = session.scalars(select(Round).where(Round.lease_epoch == 7)).one()
    assert lost.status == "failed"
    assert "ended before the round did" in str(lost.reason)


def test_a_round_whose_lease_was_lost_is_not_promoted(make_house: Callable[..., House]) -> None:
    house = make_house(config=replace(CONFIG, epochs=60))
    live = house.live
    house.choose(4)
    house.training.tick()
    wait_for(lambda: house.newest_round() is not None)
    with house.database.write() as session:
        lease = session.scalars(select(TrainerLease)).one()
        lease.holder, lease.epoch = "thief:1:0", lease.epoch + 1
    failed = house.end_of_round()
    assert failed.status == "failed"
    assert "another process took over" in str(failed.reason)
    assert house.live == live


def test_train_now_makes_a_round_due_with_fewer_choices(make_house: Callable[..., House]) -> None:
    house = make_house(min_choices=50)
    with pytest.raises(Conflict, match="no new choice"):
        house.training.train_now()
    house.choose(2)
    with pytest.raises(Conflict, match="No trainer"):
        house.training.train_now()
    house.training.tick()
    house.training.train_now()
    assert house.round().status == "promoted"
    with pytest.raises(Conflict):
        house.training.train_now()


def test_an_older_version_can_be_made_live_again_and_is_built_upon(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    first = house.live
    house.choose(4)
    house.round()
    second = house.live
    house.versions.roll_back(first, house.user)
    assert house.live == first
    for wrong in (first, 999):
        with pytest.raises((Conflict, NotFound)):
            house.versions.roll_back(wrong, house.user)
    house.choose(4)
    done = house.round()
    assert done.parent_id == first
    assert house.live == second + 1
    with house.database.read() as session:
        causes = session.scalars(select(Promotion.cause).order_by(Promotion.id)).all()
    assert causes == ["initial", "round", "rollback", "round"]


def test_a_damaged_version_is_refused_and_the_one_before_is_served(
    make_house: Callable[..., House], model_path: Path
) -> None:
    house = make_house()
    first = house.live
    house.choose(4)
    done = house.round()
    second = house.live
    weights = house.folder / str(done.artifact) / "adapter" / "adapter_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    base = load_language_model(model_path, IDENTITY, device="cpu", dtype="float32")
    restarted = LocalEngine(base, threads=1, config=CONFIG)
    try:
        Versions(house.database, restarted, house.folder, clock=house.clock).follow()
        assert restarted.live_version is not None
        assert restarted.live_version.version_id == first
        with house.database.read() as session:
            assert session.get_one(Version, second).damaged_at is not None
        with pytest.raises(Conflict, match="damaged"):
            house.versions.roll_back(second, house.user)
    finally:
        restarted.close()
