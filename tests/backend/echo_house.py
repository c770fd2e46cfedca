"""A desk on the echo engine, on whichever database the test runs: seconds, not minutes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, select

from backend import prompts
from backend.comparison_views import ComparisonView
from backend.comparisons import Desk
from backend.engines.base import Sampling
from backend.engines.echo import EchoEngine
from backend.making import Maker
from backend.plans import Shares
from backend.repeats import Repeats
from backend.versions import Versions
from db.models import Comparison, User
from db.session import Database
from tests.conftest import Clock


@dataclass
class House:
    database: Database
    desk: Desk
    maker: Maker
    engine: EchoEngine
    versions: Versions
    clock: Clock

    def user(self, name: str) -> int:
        with self.database.write() as session:
            user = User(username=name, username_key=name, created_at=self.clock())
            session.add(user)
            session.flush()
            return user.id

    def rows(self, model: type) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(model)) or 0


@contextmanager
def open_house(
    database: Database,
    clock: Clock,
    folder: Path,
    pair_taken: Callable[[int], None] = lambda _user: None,
    *,
    word_delay_s: float = 0.001,
    repeat_share: float = 0.0,
    reveal: bool = False,
) -> Iterator[House]:
    """A desk on the echo engine, without prefetching."""
    prompts.import_bank(database, clock())
    engine = EchoEngine(word_delay_s=word_delay_s)
    versions = Versions(database, engine, folder, clock=clock)
    versions.ensure_initial()
    versions.follow()
    maker = Maker(
        database,
        engine,
        sampling=Sampling(max_new_tokens=40),
        shares=Shares(blind=0.2, base=0.2),
        clock=clock,
        rng=random.Random(3),
        repeats=Repeats(database, share=repeat_share, clock=clock, rng=random.Random(2)),
    )
    desk = Desk(
        database,
        maker,
        max_prompt_chars=100,
        clock=clock,
        rng=random.Random(4),
        pair_taken=pair_taken,
        reveal=reveal,
    )
    yield House(database, desk, maker, engine, versions, clock)
    engine.close()
    maker.close()


def last(views: Iterator[ComparisonView]) -> ComparisonView:
    return list(views)[-1]


def comparison_id(view: ComparisonView) -> int:
    assert view.comparison_id is not None
    return view.comparison_id


def row(house: House, comparison: int) -> Comparison:
    """The comparison as it is stored."""
    with house.database.read() as session:
        return session.get_one(Comparison, comparison)


def judge(house: House, user: int, verdict: str = "a") -> ComparisonView:
    """The next pair, chosen after two seconds."""
    view = last(house.desk.stream(user))
    house.clock.forward(seconds=2)
    house.desk.choose(user, comparison_id(view), verdict)
    return view
