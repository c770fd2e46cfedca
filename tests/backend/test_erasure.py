"""Erasing oneself: no row, no name, no vector; everybody else as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from backend.administration import Administration
from backend.auth import Accounts, CurrentUser
from backend.engines.base import VersionRef
from backend.erasure import Erasure
from backend.errors import Conflict, InvalidInput, NotFound
from backend.trainer_process import TrainerProcess
from backend.training import Trainer
from backend.vector_files import VectorFiles
from db.models import (
    Base,
    Choice,
    Comparison,
    PrequentialScore,
    Prompt,
    Response,
    Round,
    RoundPair,
    UnwantedPrompt,
    User,
    Version,
    WebSession,
)
from db.queries.rounds import users_with_counts
from db.session import Database
from tests.backend.house import CONFIG, LIMIT_S, House
from tests.backend.judged import Judged
from tests.backend.people import GOOD, HOME
from tests.conftest import Clock
from trainer.artifacts import load_version, manifest_sha256, read_user_vectors
from trainer.types import Progress, RoundRequest, RoundResult

OWN_ROWS: tuple[type[Base], ...] = (
    Choice,
    Comparison,
    PrequentialScore,
    Prompt,
    Response,
    RoundPair,
    UnwantedPrompt,
    WebSession,
)


@pytest.fixture
def judged(database: Database, clock: Clock) -> Judged:
    return Judged(database, clock)


@pytest.fixture
def erasure(database: Database, clock: Clock) -> Erasure:
    return Erasure(database, None, follow=lambda: None, clock=clock)


def full_life(judged: Judged, user: int, version: int) -> int:
    """Every kind of row that can be somebody's; returns the round."""
    comparison = judged.comparison(user, version)
    first = judged.choice(user, comparison, "a")
    second = judged.choice(user, comparison, "b", supersedes=first)
    judged.score(first, version, (1.0, 1.0, None))
    repeat = judged.comparison(user, version)
    with judged.database.write() as session:
        row = session.get_one(Comparison, repeat)
        row.repeat_of_id = row.continues_id = comparison
        session.add(
            UnwantedPrompt(user_id=user, prompt_id=row.prompt_id, created_at=judged.clock())
        )
    return judged.round(version, [second])


def counts(database: Database) -> dict[str, int]:
    with database.read() as session:
        return {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in OWN_ROWS
        }


def row_of(database: Database, user: int) -> User:
    with database.read() as session:
        return session.get_one(User, user)


def test_no_row_is_left_and_others_keep_theirs(
    judged: Judged, erasure: Erasure, accounts: Accounts
) -> None:
    other = judged.user("jo")
    version = judged.version()
    full_life(judged, other, version)
    before = counts(judged.database)
    signed_in = accounts.sign_up("Mara", GOOD, address=HOME)
    user = signed_in.user.id
    kept_round = full_life(judged, user, version)
    samples: list[dict[str, Any]] = [{"user_id": user, "text": "x"}, {"user_id": None, "text": "y"}]
    with judged.database.write() as session:
        row = session.get_one(User, user)
        row.profile, row.language, row.consented_at = "I like", "de", judged.clock()
        row.consented_to = "0" * 64
        session.get_one(Round, kept_round).gate = {"passed": True, "samples": samples}
        score = session.scalars(select(PrequentialScore).filter_by(user_id=other)).one()
        score.wrong_user_id = user
    erasure.erase(user, " mara ")
    assert counts(judged.database) == before
    gone = row_of(judged.database, user)
    assert "mara" not in gone.username + gone.username_key
    assert (gone.profile, gone.language) == ("", "")
    assert (gone.password_hash, gone.consented_at, gone.consented_to) == (None, None, None)
    assert accounts.user_for_token(signed_in.token) is None
    with pytest.raises(InvalidInput):
        accounts.sign_in("Mara", GOOD, address=HOME)
    with judged.database.read() as session:
        assert session.get_one(Round, kept_round).gate == {"passed": True, "samples": samples[1:]}
    assert accounts.sign_up("Mara", GOOD, address=HOME).user.id != user  # a number is never reused


def test_only_the_own_name_confirms(judged: Judged, erasure: Erasure) -> None:
    user = judged.user("mia")
    full_life(judged, user, judged.version())
    before = counts(judged.database)
    for typed in ("", "mi", "jo"):
        with pytest.raises(InvalidInput):
            erasure.erase(user, typed)
    assert counts(judged.database) == before
    erasure.erase(user, "MIA")
    with pytest.raises(NotFound):
        erasure.erase(user, "mia")
    with pytest.raises(NotFound):
        erasure.erase(judged.user("persona", simulated=True), "persona")


def test_who_was_erased_is_no_user_to_manage(
    judged: Judged, erasure: Erasure, admin: CurrentUser
) -> None:
    user = judged.user("mia")
    erasure.erase(user, "mia")
    administration = Administration(judged.database, clock=judged.clock)
    assert [person.id for person in administration.users(admin.id, "")] == [admin.id]
    with pytest.raises(NotFound):
        administration.enable(admin.id, user)
    with judged.database.read() as session:
        assert [row.id for row, *_ in users_with_counts(session)] == [admin.id]


def test_the_last_admin_stays(erasure: Erasure, admin: CurrentUser) -> None:
    with pytest.raises(Conflict):
        erasure.erase(admin.id, admin.username)


def test_what_is_stored_late_is_swept_up(judged: Judged, erasure: Erasure) -> None:
    user, version = judged.user("mia"), judged.version()
    erasure.erase(user, "mia")
    judged.comparison(user, version)  # it was being written meanwhile
    erasure.sweep()
    assert set(counts(judged.database).values()) == {0}


# What a tiny model makes of four pairs is not this test's concern.
LENIENT = replace(
    CONFIG,
    gate=replace(
        CONFIG.gate,
        max_nll_rise_nats=1e3,
        doubtful_nll_rise_nats=1e3,
        max_drift_nats=1e3,
        max_chosen_logp_drop_nats=1e3,
        max_end_logp_drop_nats=1e3,
        max_own_over_unlearnt_nats=1e3,
    ),
)


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    """One round promoted, trained on two people."""
    house = make_house(min_choices=4, config=LENIENT)
    house.choose(2)
    first = house.user
    with house.database.write() as session:
        other = User(username="jo", username_key="jo", created_at=house.clock())
        session.add(other)
        session.flush()
        house.user = other.id
    house.choose(2)
    house.user = first
    assert house.round().status == "promoted"
    return house


def files_of(house: House) -> VectorFiles:
    return VectorFiles(
        house.database,
        house.folder,
        live=lambda: house.engine.live_version,
        clock=house.clock,
    )


def live_path(house: House) -> Path:
    assert house.engine.live_version is not None
    return house.engine.live_version.path


def test_a_vector_leaves_what_is_served_at_once_and_the_disk_soon(house: House) -> None:
    files, user = files_of(house), house.user
    with house.database.read() as session:
        (other,) = session.scalars(select(User.id).where(User.username == "jo"))
    vector = files.read(user)
    assert vector is not None
    assert vector.version_id == house.live
    old, served = live_path(house), house.live
    kept = load_version(old, base_identity=house.engine.model_identity)
    assert vector.values == tuple(tuple(row) for row in kept.vectors.personal[user].tolist())
    erasure = Erasure(house.database, files, follow=house.versions.follow, clock=house.clock)
    erasure.erase(user, "mia")
    new = live_path(house)
    assert new != old
    assert house.live == served
    now = load_version(new, base_identity=house.engine.model_identity)
    assert set(now.vectors.personal) == {other}
    assert now.vectors.personal[other].equal(kept.vectors.personal[other])
    assert all(now.adapter[name].equal(kept.adapter[name]) for name in kept.adapter)
    with house.database.read() as session:
        row = session.get_one(Version, served)
        assert (row.artifact, row.manifest_sha256) == (new.name, manifest_sha256(new))
        assert session.scalars(select(Round.artifact)).all() == [new.name]
    state = (new / "trainer_state.safetensors").read_bytes()
    assert f"user.{other}/".encode() in state
    assert f"user.{user}/".encode() not in state
    erasure.sweep()  # notices what was replaced; another process may still be reading it
    assert old.is_dir()
    house.clock.forward(minutes=2)
    erasure.sweep()
    assert not old.exists()
    assert files.read(user) is None
    house.user = other
    house.choose(4)
    done = house.round()  # training goes on from the directory without; the gate may say no
    assert done.status in {"promoted", "refused"}, done.reason
    assert set(read_user_vectors(house.folder / str(done.artifact)).personal) == {other}


def test_a_version_that_a_running_round_brings_is_swept_too(house: House) -> None:
    """The round began before the erasure, so it wrote the vector once more."""
    files, user = files_of(house), house.user
    erasure = Erasure(house.database, files, follow=house.versions.follow, clock=house.clock)
    earlier = live_path(house)
    house.choose(4)
    later = house.round()
    with house.database.write() as session:
        row = session.get_one(User, user)
        row.username_key = f"erased: {user}"
    erasure.sweep()
    for path in (f"{later.artifact}~1", f"{earlier.name}~1"):
        assert user not in read_user_vectors(house.folder / path).personal
    running = Round(
        status="running",
        lease_epoch=9,
        parent_id=house.live,
        config={},
        started_at=house.clock(),
    )
    with house.database.write() as session:
        session.add(running)
    for _ in range(3):
        house.clock.forward(minutes=2)
        erasure.sweep()
    assert earlier.is_dir()  # the round may be reading it
    with house.database.write() as session:
        session.get_one(Round, running.id).status = "failed"
    erasure.sweep()
    assert not earlier.exists()


class Meanwhile:
    """The trainer; between its last word and the round's end `happens`."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.happens: Callable[[RoundResult], None] = lambda _: None

    def run(
        self, request: RoundRequest, on_progress: Callable[[Progress], None], timeout_s: float
    ) -> RoundResult:
        result = self._trainer.run(request, on_progress, timeout_s)
        self.happens(result)
        return result


def about_to_train(
    make_house: Callable[..., House], trainer: Trainer
) -> tuple[Meanwhile, House, Erasure]:
    """Choices enough for a round, and what may happen before its end is stored."""
    meanwhile = Meanwhile(trainer)
    house = make_house(config=LENIENT, trainer=meanwhile)
    follow, clock = house.versions.follow, house.clock
    erasure = Erasure(house.database, files_of(house), follow=follow, clock=clock)
    house.choose(4)
    return meanwhile, house, erasure


def test_a_round_under_way_stores_no_text_in_the_taste_of_who_is_gone(
    make_house: Callable[..., House], trainer: TrainerProcess
) -> None:
    meanwhile, house, erasure = about_to_train(make_house, trainer)
    user = house.user

    def erase(result: RoundResult) -> None:
        assert user in {sample["user_id"] for sample in result.gate.samples}
        erasure.erase(user, "mia")

    meanwhile.happens = erase
    done = house.round()
    assert (done.status, done.reason) == ("promoted", None)
    assert done.gate is not None
    assert {sample["user_id"] for sample in done.gate["samples"]} == {None}
    erasure.sweep()
    assert user not in read_user_vectors(live_path(house)).personal


def test_what_a_killed_round_has_left_is_swept_too(
    make_house: Callable[..., House], trainer: TrainerProcess
) -> None:
    class Killed(BaseException):
        pass

    def kill(_result: RoundResult) -> None:
        raise Killed

    meanwhile, house, erasure = about_to_train(make_house, trainer)
    user = house.user
    meanwhile.happens = kill
    house.training.tick()
    with pytest.raises(Killed):
        house.training.wait(LIMIT_S)
    left = house.folder / "round-000001"
    assert user in read_user_vectors(left).personal
    erasure.erase(user, "mia")
    house.training.tick()  # the round is buried
    for _ in range(2):
        erasure.sweep()
        house.clock.forward(minutes=2)
    erasure.sweep()
    assert not left.exists()
    assert user not in read_user_vectors(house.folder / "round-000001~1").personal


def test_a_round_goes_live_as_erasing_has_written_it(
    make_house: Callable[..., House], trainer: TrainerProcess
) -> None:
    """Its directory is there before its end is stored; a sweep in between finds it."""
    meanwhile, house, erasure = about_to_train(make_house, trainer)
    user = house.user

    def erase(_result: RoundResult) -> None:
        erasure.erase(user, "mia")
        erasure.sweep()

    meanwhile.happens = erase
    assert house.round().status == "promoted"
    assert live_path(house).name == "round-000001~1"
    assert user not in read_user_vectors(live_path(house)).personal


def test_a_full_disk_does_not_stop_the_erasure(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, user = files_of(house), house.user
    erasure = Erasure(house.database, files, follow=house.versions.follow, clock=house.clock)

    def full(*_arguments: object) -> str:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("backend.vector_files.write_without", full)
        erasure.erase(user, "mia")
        assert user in read_user_vectors(live_path(house)).personal
    erasure.sweep()
    assert user not in read_user_vectors(live_path(house)).personal


def test_an_engine_without_a_version_has_no_vectors(database: Database, clock: Clock) -> None:
    def nothing() -> VersionRef | None:
        return None

    files = VectorFiles(database, Path("nowhere"), live=nothing, clock=clock)
    assert files.read(1) is None
    files.forget_live()
    files.forget()
