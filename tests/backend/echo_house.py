"""A desk on the echo engine, on whichever database the test runs: seconds, not minutes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from sqlalchemy import func, select

from backend import prompts
from backend.comparison_views import ComparisonView
from backend.comparisons import Desk
from backend.engines.base import Priority, Sampling
from backend.engines.echo import EchoEngine
from backend.making import Maker
from backend.plans import Shares
from backend.prefetch import Prefetcher
from backend.repeats import Repeats
from backend.shared_pairs import SharedPairs
from backend.styles import Style
from backend.versions import Versions
from db.models import Comparison, User
from db.session import Database
from tests.conftest import Clock

MIXED = Shares(blind=0.2, base=0.2)


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
    engine: EchoEngine | None = None,
    word_delay_s: float = 0.001,
    max_new_tokens: int = 40,
    shares: Shares = MIXED,
    styles: Sequence[Style] = (),
    directions: Mapping[str, int] = MappingProxyType({}),
    drafts: int = 1,
    shared_pairs: int = 0,
    repeat_share: float = 0.0,
    profile_of: Callable[[int], str] = lambda _user: "",
    priority: Priority = Priority.INTERACTIVE,
    reveal: bool = False,
) -> Iterator[House]:
    """A desk on the echo engine, without prefetching.

    Args:
        engine: one that the test listens to, else an echo with `word_delay_s`.
        shared_pairs: how many of everybody's first pairs are shared ones.
    """
    prompts.import_bank(database, clock())
    engine = engine or EchoEngine(word_delay_s=word_delay_s)
    versions = Versions(database, engine, folder, clock=clock)
    versions.ensure_initial()
    versions.follow()
    maker = Maker(
        database,
        engine,
        sampling=Sampling(max_new_tokens=max_new_tokens),
        shares=shares,
        styles=styles,
        directions=directions,
        drafts=drafts,
        clock=clock,
        rng=random.Random(3),
        shared=SharedPairs(database, first=shared_pairs, clock=clock, rng=random.Random(5)),
        repeats=Repeats(database, share=repeat_share, clock=clock, rng=random.Random(2)),
        profile_of=profile_of,
    )
    desk = Desk(
        database,
        maker,
        max_prompt_chars=100,
        clock=clock,
        rng=random.Random(4),
        pair_taken=pair_taken,
        priority=priority,
        reveal=reveal,
    )
    try:
        yield House(database, desk, maker, engine, versions, clock)
    finally:
        engine.close()
        maker.close()


def prefetcher_of(house: House, *, target: int = 1, gives_way_s: float = 0.0) -> Prefetcher:
    """What makes this house's pairs ahead of time; to be closed before the house is."""
    return Prefetcher(
        house.database,
        house.engine,
        house.maker,
        target=target,
        clock=house.clock,
        rng=random.Random(5),
        gives_way_s=gives_way_s,
    )


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
