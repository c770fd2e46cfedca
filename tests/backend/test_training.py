"""Rounds from choice to live version: real trainer process, real engine, tiny random model."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from backend.errors import Conflict
from backend.lease import LEASE_TTL
from backend.trainer_process import TrainerProcess
from db.models import Response, Round, TrainerLease
from dev.waiting import wait_for
from tests.backend.house import CONFIG, IDENTITY, LIMIT_S, House, trainer_arguments
from tests.backend.judged import Judged
from trainer.artifacts import load_version
from trainer.types import Condition, Message


def test_choices_become_a_live_version_that_makes_the_next_responses(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    first = house.live
    house.choose(3)
    house.training.tick()
    house.training.wait(LIMIT_S)
    assert house.newest_round() is None
    assert str(house.insights.chip(house.user).until_next) == "learns again in 1"

    house.choose(1)
    done = house.round()
    assert (done.status, done.reason) == ("promoted", None)
    assert house.uses(done.id) == ["new"] * 4
    assert house.live == first + 1
    chip = house.insights.chip(house.user)
    assert (chip.version, chip.choices, str(chip.until_next)) == (first + 1, 4, "learns again in 4")
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
    assert str(house.insights.chip(house.user).until_next) == "learns again in 8"


def test_ties_alone_promise_no_round(make_house: Callable[..., House]) -> None:
    house = make_house()
    for _ in range(8):
        view = list(house.desk.stream(house.user))[-1]
        assert view.comparison_id is not None
        house.desk.choose(house.user, view.comparison_id, "tie")
    house.training.tick()
    house.training.wait(LIMIT_S)
    assert house.newest_round() is None
    assert str(house.insights.chip(house.user).until_next) == "learns again in 1"
    house.choose(4)
    assert str(house.insights.chip(house.user).until_next) == "learns in a moment"


def test_nan_fails_the_round_and_consumes_nothing(make_house: Callable[..., House]) -> None:
    house = make_house(config=replace(CONFIG, learning_rate_adapter=1e30, epochs=3))
    live = house.live
    house.choose(4)
    failed = house.round()
    assert failed.status == "failed"
    assert failed.reason
    assert house.live == live
    assert str(house.insights.chip(house.user).until_next) == "tries again later"
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
    assert str(house.insights.chip(house.user).until_next) == "tries again later"


def test_a_refused_round_stays_so_when_the_engine_cannot_follow(
    make_house: Callable[..., House],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    house = make_house(config=replace(CONFIG, gate=replace(CONFIG.gate, max_nll_rise_nats=-99.0)))
    house.choose(4)

    def broken() -> None:
        raise OSError("stale file handle")

    monkeypatch.setattr(house.versions, "follow", broken)
    house.training.tick()
    with pytest.raises(OSError, match="stale"):
        house.training.wait(LIMIT_S)
    refused = house.newest_round()
    assert refused is not None
    assert refused.status == "refused"
    assert (house.folder / str(refused.artifact) / "manifest.json").exists()
    wait_for(lambda: "stale file handle" in caplog.text)


def test_a_progress_report_that_cannot_be_stored_is_lost_and_nothing_else(
    make_house: Callable[..., House], caplog: pytest.LogCaptureFixture
) -> None:
    house = make_house()
    house.choose(4)

    @event.listens_for(house.database.engine, "before_cursor_execute")
    def away(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
        if statement.startswith("UPDATE rounds SET progress"):
            raise OperationalError(statement, None, OSError("the database is away"))

    done = house.round()
    assert (done.status, done.reason) == ("promoted", None)
    assert len(house.insights.curve(done.id)) >= 1
    assert "is not shown" in caplog.text


def test_a_directory_that_a_restored_database_does_not_know_is_left_alone(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    house.choose(4)
    later = house.folder / "round-000001"
    later.mkdir()
    done = house.round()
    assert (done.status, done.artifact) == ("promoted", "round-000001-2")
    assert later.is_dir()


def test_choices_on_another_models_responses_are_neither_counted_nor_learnt_from(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    judged = Judged(house.database, house.clock)
    other = judged.version("of another vocabulary")
    house.training.tick()
    for purpose in ("learn", "learn", "learn", "learn", "blind"):
        pair = judged.comparison(house.user, other, purpose=purpose, tokens=([10**6], [10**6 + 1]))
        judged.choice(house.user, pair, "a")
    assert str(house.insights.chip(house.user).until_next) == "learns again in 4"
    with pytest.raises(Conflict, match="no new choice"):
        house.training.train_now()
    house.clock.forward(hours=1)  # longer than any choice may wait
    house.training.tick()
    house.training.wait(LIMIT_S)
    assert house.newest_round() is None
    house.choose(4)
    done = house.round()
    assert (done.status, done.reason) == ("promoted", None)
    assert house.uses(done.id) == ["new"] * 4


def test_a_trainer_that_dies_in_mid_round_fails_it_and_is_started_again(
    make_house: Callable[..., House], model_path: Path
) -> None:
    own = TrainerProcess(trainer_arguments(model_path))
    try:
        house = make_house(config=replace(CONFIG, epochs=500), trainer=own)
        live = house.live
        house.choose(4)
        house.training.tick()
        wait_for(lambda: house.phase() == "train")
        assert own.pid is not None
        os.kill(own.pid, signal.SIGKILL)
        failed = house.end_of_round()
        assert failed.status == "failed"
        assert "signal 9" in str(failed.reason)
        assert house.live == live
        own.start()
        assert own.pid is not None
    finally:
        own.close()


def test_ctrl_c_in_the_terminal_does_not_reach_the_trainer(trainer: TrainerProcess) -> None:
    trainer.start()
    assert trainer.pid is not None
    assert os.getpgid(trainer.pid) != os.getpgid(0)


def test_the_trainers_niceness_counts_beside_the_apps_threads(trainer: TrainerProcess) -> None:
    """Linux gives every session its share of the processor, and niceness counts within one."""
    trainer.start()
    assert trainer.pid is not None
    assert os.getsid(trainer.pid) == os.getsid(0)


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
    house.choose(2)
    house.clock.forward(seconds=LEASE_TTL.total_seconds())
    with pytest.raises(Conflict, match="No trainer"):  # there was one
        house.training.train_now()


def test_a_new_users_vector_is_trained_before_the_next_full_round(
    make_house: Callable[..., House],
) -> None:
    house = make_house(min_choices=50, fast_choices=3)
    first = house.live
    house.choose(2)
    house.training.tick()
    house.training.wait(LIMIT_S)
    assert house.newest_round() is None

    house.choose(1)
    fast = house.round()
    assert (fast.status, fast.kind, fast.reason) == ("promoted", "vector", None)
    assert house.uses(fast.id) == ["new"] * 3
    assert house.live == first + 1
    adapters = [path.read_bytes() for path in house.folder.glob("*/adapter/*.safetensors")]
    assert len(adapters) == 2
    assert adapters[0] == adapters[1]
    # Its choices wait for a full round all the same.
    assert str(house.insights.chip(house.user).until_next) == "learns again in 47"
    assert house.insights.lab().rounds[0].kind == "vector"

    house.choose(4)
    assert house.round().id == fast.id  # once is enough
    house.training.train_now()
    full = house.round()
    assert (full.status, full.kind) == ("promoted", "full")
    assert house.uses(full.id) == ["new"] * 7
    house.choose(4)
    assert house.round().id == full.id  # not new any more


def test_a_full_round_that_is_due_comes_first(make_house: Callable[..., House]) -> None:
    house = make_house(min_choices=4, fast_choices=3)
    house.choose(4)
    assert house.round().kind == "full"


def test_a_refused_vector_round_is_not_tried_again(make_house: Callable[..., House]) -> None:
    strict = replace(CONFIG, gate=replace(CONFIG.gate, max_nll_rise_nats=-99.0))
    house = make_house(config=strict, min_choices=50, fast_choices=3)
    live = house.live
    house.choose(3)
    refused = house.round()
    assert (refused.status, refused.kind) == ("refused", "vector")
    assert house.live == live
    house.clock.forward(seconds=1000)
    assert house.round().id == refused.id


def test_a_failed_vector_round_is_tried_again_later_and_holds_no_full_round_up(
    make_house: Callable[..., House],
) -> None:
    hot = replace(CONFIG, vector_rate_factor=1e45, vector_epochs=3)
    house = make_house(config=hot, min_choices=5, fast_choices=3)
    house.choose(3)
    failed = house.round()
    assert (failed.status, failed.kind) == ("failed", "vector")
    assert house.round().id == failed.id  # not at once again
    house.clock.forward(seconds=16)
    assert house.round().id == failed.id + 1
    house.choose(2)
    full = house.round()
    assert (full.status, full.kind) == ("promoted", "full")
    assert house.uses(full.id) == ["new"] * 5


def test_a_version_of_clustered_users_is_served_like_any_other(
    make_house: Callable[..., House],
) -> None:
    config = replace(CONFIG, user_model="cluster", clusters=3)
    house = make_house(config=config, min_choices=2)
    first = house.live
    house.choose(2)  # of more pairs of noise, what suits them worse than nothing is unlearnt
    assert house.round().status == "promoted"
    assert house.live == first + 1
    vectors = load_version(house.folder / "round-000001", base_identity=IDENTITY).vectors
    assert set(vectors.personal) == {house.user}
    messages = (Message(role="user", content="What is tea?"),)
    personal, new, generic = (
        house.engine.score(messages, [[5, 6, 7]], condition, user)
        for condition, user in (
            (Condition.PERSONAL, house.user),
            (Condition.PERSONAL, house.user + 1),
            (Condition.GENERIC, None),
        )
    )
    assert personal != generic
    assert new == generic
