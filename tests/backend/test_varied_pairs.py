"""Styles and shared pairs at work: what is stored, what the draw remembers, who gets whose pair."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import select

from backend.comparison_views import ComparisonView
from backend.plans import Shares
from backend.shared_pairs import SharedPairs
from backend.styles import load_styles
from db.models import Comparison, Response
from db.queries.comparisons import judged_texts
from db.session import Database
from tests.backend.echo_house import House, judge, last, open_house
from tests.backend.judged import Judged
from tests.conftest import Clock

VARIED = Shares(blind=0, base=0, varied=1)
MakeHouse = Callable[..., House]


@pytest.fixture
def make_house(database: Database, clock: Clock, tmp_path: Path) -> Iterator[MakeHouse]:
    """Pairs of two wishes each; so many of the first are shared."""
    with ExitStack() as closing:

        def make(shared_pairs: int = 0) -> House:
            house = open_house(
                database,
                clock,
                tmp_path,
                max_new_tokens=8,
                shares=VARIED,
                styles=load_styles(),
                shared_pairs=shared_pairs,
            )
            return closing.enter_context(house)

        yield make


def responses_of(house: House, view: ComparisonView) -> list[Response]:
    with house.database.read() as session:
        rows = select(Response).where(Response.comparison_id == view.comparison_id)
        return list(session.scalars(rows.order_by(Response.side)))


def test_responses_keep_their_style_and_choices_teach_the_draw(make_house: MakeHouse) -> None:
    house = make_house()
    mia, ben = house.user("mia"), house.user("ben")

    def taught(user: int) -> list[tuple[str, str]]:
        with house.database.read() as session:
            return judged_texts(session, user)

    first, second = responses_of(house, judge(house, mia, "b"))
    assert first.style != second.style
    assert taught(mia) == [(second.text, first.text)]
    assert taught(ben) == []
    house.desk.undo(mia)
    assert taught(mia) == []


def test_what_a_user_likes_is_drawn_more_often_than_for_who_does_not(make_house: MakeHouse) -> None:
    house = make_house()
    judged = Judged(house.database, house.clock)
    mia, ben = house.user("mia"), house.user("ben")
    assert house.engine.live_version is not None
    listed = "1. Sun: light.\n2. Air: scatters it.\n3. Blue: most."
    for _ in range(25):
        for user, verdict in ((mia, "a"), (ben, "b")):
            version = house.engine.live_version.version_id
            pair = judged.comparison(user, version, texts=(listed, "Air scatters blue light."))
            judged.choice(user, pair, verdict)

    def listed_of(user: int) -> int:
        some = [responses_of(house, judge(house, user, "skip")) for _ in range(24)]
        return sum(any(response.style == "list" for response in pair) for pair in some)

    assert listed_of(mia) > 9 > listed_of(ben)


def test_a_beginner_gets_the_pair_somebody_else_has_judged(make_house: MakeHouse) -> None:
    house = make_house(shared_pairs=2)
    mia, ben = house.user("mia"), house.user("ben")
    hers, his = judge(house, mia), judge(house, ben)
    assert his.prompt == hers.prompt
    assert {his.text_a, his.text_b} == {hers.text_a, hers.text_b}
    assert his.comparison_id != hers.comparison_id
    made, copied = responses_of(house, hers), responses_of(house, his)
    assert {r.condition for r in (*made, *copied)} == {"generic"}
    by_text = {r.text: r for r in made}
    for response in copied:
        original = by_text[response.text]
        for kept in ("token_ids", "version_id", "seed", "style", "temperature", "seconds"):
            assert getattr(response, kept) == getattr(original, kept)
    # Nobody gets a pair twice: his next one is new, and it is hers next.
    assert judge(house, ben).prompt == judge(house, mia).prompt != hers.prompt


def test_a_prompt_that_is_being_answered_is_not_handed_on_as_well(make_house: MakeHouse) -> None:
    house = make_house(shared_pairs=2)
    mia, ben = house.user("mia"), house.user("ben")
    hers = judge(house, mia)
    with house.database.read() as session:
        prompt = session.get_one(Comparison, hers.comparison_id).prompt_id
    assert house.engine.live_version is not None
    version = house.engine.live_version.version_id
    shared = SharedPairs(house.database, first=2, clock=house.clock, rng=random.Random(5))
    assert not shared.hand_over(ben, version, [prompt])
    assert shared.hand_over(ben, version, [prompt + 1])


def test_after_the_first_pairs_everyone_gets_pairs_of_their_own(make_house: MakeHouse) -> None:
    house = make_house(shared_pairs=1)
    mia, ben = house.user("mia"), house.user("ben")
    judge(house, mia)
    own = judge(house, mia)
    assert {r.condition for r in responses_of(house, own)} == {"personal"}
    assert judge(house, ben).prompt != own.prompt
    # What was made with a vector is never handed on, though he has judged one pair only.
    assert not house.maker.hand_over(ben)


def test_own_questions_are_never_shared(make_house: MakeHouse) -> None:
    house = make_house(shared_pairs=5)
    mia, ben = house.user("mia"), house.user("ben")
    assert last(house.desk.ask(mia, "What did my doctor mean?")).own
    assert not house.maker.hand_over(ben)
    with house.database.read() as session:
        assert session.scalars(select(Comparison.user_id)).all() == [mia]
