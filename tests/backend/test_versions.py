"""Which version is live: roll back, damage, missing folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.engines.local import LocalEngine
from backend.errors import Conflict, NotFound
from backend.versions import Versions
from db.models import Promotion, Version
from tests.backend.house import CONFIG, IDENTITY, House
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
