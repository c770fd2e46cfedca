"""Styles and shared pairs at work: what is stored, what the draw remembers, who gets whose pair."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import select

from backend import prompts
from backend.comparison_views import ComparisonView
from backend.comparisons import Desk
from backend.engines.base import Sampling
from backend.engines.echo import EchoEngine
from backend.making import Maker
from backend.plans import Shares
from backend.shared_pairs import SharedPairs
from backend.styles import load_styles
from backend.versions import Versions
from db.models import Comparison, Response, User
from db.queries.comparisons import style_choices
from db.session import Database
from tests.conftest import Clock

STYLES = load_styles()


@contextmanager
def desk(
    database: Database, clock: Clock, folder: Path, *, shared: int = 0
) -> Iterator[tuple[Desk, Maker]]:
    prompts.import_bank(database, clock())
    engine = EchoEngine()
    versions = Versions(database, engine, folder, clock=clock)
    versions.ensure_initial()
    versions.follow()
    maker = Maker(
        database,
        engine,
        sampling=Sampling(max_new_tokens=8),
        shares=Shares(blind=0, base=0, varied=1),
        styles=STYLES,
        shared=SharedPairs(database, first=shared, clock=clock, rng=random.Random(5)),
        clock=clock,
        rng=random.Random(3),
    )
    try:
        yield (
            Desk(
                database,
                maker,
                max_prompt_chars=100,
                clock=clock,
                rng=random.Random(4),
                pair_taken=lambda _user: None,
            ),
            maker,
        )
    finally:
        engine.close()
        maker.close()


def user(database: Database, clock: Clock, name: str) -> int:
    with database.write() as session:
        row = User(username=name, username_key=name, created_at=clock())
        session.add(row)
        session.flush()
        return row.id


def judge(desk: Desk, user_id: int) -> ComparisonView:
    seen = list(desk.stream(user_id))[-1]
    assert seen.comparison_id is not None
    desk.choose(user_id, seen.comparison_id, "b")
    return seen


def responses_of(database: Database, view: ComparisonView) -> list[Response]:
    with database.read() as session:
        rows = select(Response).where(Response.comparison_id == view.comparison_id)
        return list(session.scalars(rows.order_by(Response.side)))


def test_responses_keep_their_style_and_choices_teach_the_draw(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    mia, ben = user(database, clock, "mia"), user(database, clock, "ben")
    with desk(database, clock, tmp_path) as (mine, _):
        first, second = (r.style for r in responses_of(database, judge(mine, mia)))
        assert first != second
        with database.read() as session:
            assert style_choices(session, mia) == [(second, first)]
            assert style_choices(session, ben) == []
        mine.undo(mia)
        with database.read() as session:
            assert style_choices(session, mia) == []


def test_a_beginner_gets_the_pair_somebody_else_has_judged(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    mia, ben = user(database, clock, "mia"), user(database, clock, "ben")
    with desk(database, clock, tmp_path, shared=2) as (desk_, _):
        hers, his = judge(desk_, mia), judge(desk_, ben)
        assert his.prompt == hers.prompt
        assert {his.text_a, his.text_b} == {hers.text_a, hers.text_b}
        assert his.comparison_id != hers.comparison_id
        made, copied = responses_of(database, hers), responses_of(database, his)
        assert {r.condition for r in (*made, *copied)} == {"generic"}
        by_text = {r.text: r for r in made}
        for response in copied:
            original = by_text[response.text]
            for kept in ("token_ids", "version_id", "seed", "style", "temperature", "seconds"):
                assert getattr(response, kept) == getattr(original, kept)
        # Nobody gets a pair twice: his next one is new, and it is hers next.
        assert judge(desk_, ben).prompt == judge(desk_, mia).prompt != hers.prompt


def test_after_the_first_pairs_everyone_gets_pairs_of_their_own(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    mia, ben = user(database, clock, "mia"), user(database, clock, "ben")
    with desk(database, clock, tmp_path, shared=1) as (desk_, maker):
        judge(desk_, mia)
        own = judge(desk_, mia)
        assert {r.condition for r in responses_of(database, own)} == {"personal"}
        assert judge(desk_, ben).prompt != own.prompt
        # What was made with a vector is never handed on, though he has judged one pair only.
        assert not maker.hand_over(ben)


def test_own_questions_are_never_shared(database: Database, clock: Clock, tmp_path: Path) -> None:
    mia, ben = user(database, clock, "mia"), user(database, clock, "ben")
    with desk(database, clock, tmp_path, shared=5) as (desk_, maker):
        asked = list(desk_.ask(mia, "What did my doctor mean?"))[-1]
        assert asked.own
        assert not maker.hand_over(ben)
        with database.read() as session:
            purposes = session.scalars(select(Comparison.user_id)).all()
        assert purposes == [mia]
