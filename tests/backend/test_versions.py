"""Which version is live: roll back, damage, missing folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select, text

from backend.engines.base import VersionRef
from backend.engines.echo import EchoEngine
from backend.engines.local import LocalEngine
from backend.errors import Conflict, NotFound
from backend.versions import Versions, begun_with
from db.models import Promotion, TrainerLease, Version
from db.queries import rounds as queries
from db.session import Database
from dev.waiting import wait_for
from tests.backend.echo_house import House as EchoHouse
from tests.backend.echo_house import open_house
from tests.backend.house import CONFIG, IDENTITY, House
from tests.conftest import Clock
from trainer.artifacts import MANIFEST
from trainer.language_model import load_language_model


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
    with restarted(house, model_path) as (engine, versions):
        versions.follow()
        assert served(engine) == first
    with house.database.read() as session:
        assert session.get_one(Version, second).damaged_at is not None
    with pytest.raises(Conflict, match="damaged"):
        house.versions.roll_back(second, house.user)


def test_a_version_whose_folder_is_missing_here_is_not_marked_as_damaged(
    make_house: Callable[..., House], model_path: Path
) -> None:
    house = make_house()
    first = house.live
    house.choose(4)
    done = house.round()
    second = house.live
    away = house.folder / "away"
    (house.folder / str(done.artifact)).rename(away)
    with restarted(house, model_path) as (engine, versions):
        versions.follow()
        assert served(engine) == first
    away.rename(house.folder / str(done.artifact))
    with restarted(house, model_path) as (engine, versions):
        versions.follow()
        assert served(engine) == second


def test_a_version_that_is_not_there_whole_is_not_said_to_be_live(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    first = house.live
    house.choose(4)
    house.round()
    second = house.live
    (house.folder / f"initial-{IDENTITY[:12]}").rename(house.folder / "away")
    with pytest.raises(Conflict, match=f"Version {second} is served instead"):
        house.versions.roll_back(first, house.user)
    assert house.live == second
    with house.database.read() as session:
        newest = session.scalars(select(Promotion).order_by(Promotion.id.desc()).limit(1)).one()
    assert newest.version_id == second  # other processes, which may find it, have nothing to follow


def another_version(house: EchoHouse, folder: Path) -> int:
    """A version that is to go live, and the house's engine not on it yet."""
    house.engine.write_initial(folder)
    with house.database.write() as session:
        return house.versions.promote(
            session, folder.name, house.engine.model_identity, cause="round", round_id=None
        ).id


def test_a_version_that_cannot_be_read_now_is_passed_over_and_not_marked(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    with open_house(database, clock, tmp_path) as house:
        first = house.engine.live_version
        second = another_version(house, tmp_path / "second")
        manifest, away = tmp_path / "second" / MANIFEST, tmp_path / "away"
        manifest.rename(away)
        manifest.mkdir()  # root may read every file, but no folder as one
        house.versions.follow()
        assert house.engine.live_version == first
        with database.read() as session:
            assert session.get_one(Version, second).damaged_at is None
        manifest.rmdir()
        away.rename(manifest)
        clock.forward(minutes=1)
        house.versions.follow()
        assert house.engine.live_version == VersionRef(second, tmp_path / "second")


def test_a_version_that_is_found_again_can_be_rolled_back_to_at_once(
    database: Database, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_house(database, clock, tmp_path) as house:
        admin, second = house.user("mia"), another_version(house, tmp_path / "second")
        for path in tmp_path.glob("initial-*"):
            shutil.rmtree(path)
        (tmp_path / "second").rename(tmp_path / "away")
        with closing(EchoEngine()) as engine:
            versions = Versions(database, engine, tmp_path, clock=clock)
            versions.follow()
            assert engine.live_version is not None
            assert engine.live_version.version_id == second + 1  # made anew: none was found
            assert f"no version is found in {tmp_path}" in caplog.text
            (tmp_path / "away").rename(tmp_path / "second")
            versions.roll_back(second, admin)
            assert engine.live_version == VersionRef(second, tmp_path / "second")


def test_a_missed_directory_is_looked_for_again_and_no_round_begins_meanwhile(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    first = house.live
    here, away = house.folder / "made-elsewhere", house.folder / "away"
    shutil.copytree(house.folder / f"initial-{IDENTITY[:12]}", here)
    with house.database.write() as session:
        later = house.versions.promote(
            session, here.name, IDENTITY, cause="round", round_id=None
        ).id
    here.rename(away)
    house.versions.follow()
    assert house.live == first
    house.choose(4)
    house.training.tick()
    assert house.newest_round() is None
    away.rename(here)
    house.versions.follow()
    assert house.live == first  # looked for a moment ago
    house.clock.forward(minutes=1)
    house.versions.follow()
    assert house.live == later
    done = house.round()
    assert (done.status, done.parent_id) == ("promoted", later)


def test_a_start_goes_on_with_the_recipe_of_the_version_it_will_serve(
    make_house: Callable[..., House],
) -> None:
    house = make_house()
    assert begun_with(house.database, IDENTITY, house.folder) == CONFIG
    house.choose(4)
    done = house.round()
    newest = begun_with(house.database, IDENTITY, house.folder)
    assert newest is not None
    assert newest.seed == done.id
    (house.folder / str(done.artifact)).rename(house.folder / "away")
    assert begun_with(house.database, IDENTITY, house.folder) == CONFIG
    assert begun_with(house.database, "another model", house.folder) is None


def test_a_round_promoted_at_the_same_moment_does_not_undo_a_roll_back(
    fresh_postgres_url: str, clock: Clock, tmp_path: Path
) -> None:
    """On SQLite there is one writer at a time anyway."""
    database = Database(fresh_postgres_url)
    waits = text("SELECT count(*) FROM pg_locks WHERE NOT granted")

    def somebody_waits() -> bool:
        with database.read() as session:
            return session.scalar(waits) != 0

    with open_house(database, clock, tmp_path) as house, ThreadPoolExecutor(1) as pool:
        live, identity = house.engine.live_version, house.engine.model_identity
        assert live is not None
        admin = house.user("mia")
        for name in ("second", "third"):
            house.engine.write_initial(tmp_path / name)
        with database.write() as session:
            session.add(TrainerLease(id=1, holder="here", epoch=1, expires_at=clock()))
            house.versions.promote(session, "second", identity, cause="round", round_id=None)
        with database.write() as session:
            queries.lock_lease(session)  # as a round does that is about to promote
            asked = pool.submit(house.versions.roll_back, live.version_id, admin)
            wait_for(somebody_waits)
            house.versions.promote(session, "third", identity, cause="round", round_id=None)
        asked.result()
        assert house.engine.live_version == live
    database.close()


def test_when_every_artifact_is_gone_it_starts_again_from_the_base_model(
    make_house: Callable[..., House], model_path: Path
) -> None:
    house = make_house()
    house.choose(4)
    house.round()
    second = house.live
    for path in house.folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    with restarted(house, model_path) as (engine, versions):
        versions.follow()
        assert served(engine) == second + 1


@contextmanager
def restarted(house: House, model_path: Path) -> Iterator[tuple[LocalEngine, Versions]]:
    """A second process's engine on the same database and folder."""
    base = load_language_model(model_path, IDENTITY, device="cpu", dtype="float32")
    engine = LocalEngine(base, threads=1, config=CONFIG)
    try:
        yield engine, Versions(house.database, engine, house.folder, clock=house.clock)
    finally:
        engine.close()


def served(engine: LocalEngine) -> int:
    assert engine.live_version is not None
    return engine.live_version.version_id
