"""The styled user model at work: pairs along directions, and the records a round is told."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from backend.style_choices import records_for_round, records_of
from sqlalchemy import select, update

from backend.comparison_views import ComparisonView
from backend.engines.base import Condition, GenerationRequest, Priority
from backend.engines.echo import EchoEngine
from backend.engines.generation import RunningGeneration
from backend.lease import Lease
from backend.plans import Shares
from backend.prequential import Scorer
from backend.round_input import RoundLimits
from backend.styles import Record, load_styles, with_directions
from backend.training import Training
from db.models import Comparison, PrequentialScore, Response
from db.session import Database
from tests.backend.echo_house import House, comparison_id, judge, last, open_house
from tests.conftest import Clock
from trainer.config import TrainConfig, UserModelKind
from trainer.types import Progress, RoundFailed, RoundRequest, RoundResult, StyleRecord

STYLES = load_styles()
DIRECTIONS = {style.name: index for index, style in enumerate(with_directions(STYLES))}
ORDER = ["as it comes", *DIRECTIONS]


class Listening(EchoEngine):
    """Keeps what it was asked; says nothing at all where `mute` says so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[GenerationRequest] = []
        self.mute = False

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> RunningGeneration:
        self.asked += requests
        if self.mute:
            requests = [
                replace(request, sampling=replace(request.sampling, max_new_tokens=0))
                for request in requests
            ]
        return super().generate(requests, priority)


class Refusing:
    """A trainer that keeps the request and fails the round."""

    def __init__(self) -> None:
        self.requests: list[RoundRequest] = []

    def run(
        self, request: RoundRequest, on_progress: Callable[[Progress], None], timeout_s: float
    ) -> RoundResult:
        self.requests.append(request)
        raise RoundFailed("only listening")


@pytest.fixture
def engine() -> Listening:
    return Listening()


@pytest.fixture
def house(database: Database, clock: Clock, tmp_path: Path, engine: Listening) -> Iterator[House]:
    with open_house(
        database,
        clock,
        tmp_path,
        engine=engine,
        max_new_tokens=8,
        shares=Shares(blind=0, base=0, varied=1),
        styles=STYLES,
        directions=DIRECTIONS,
        profile_of=lambda _user: "I teach.",
    ) as house:
        yield house


def responses_of(house: House, view: ComparisonView) -> list[Response]:
    with house.database.read() as session:
        rows = select(Response).where(Response.comparison_id == comparison_id(view))
        return list(session.scalars(rows.order_by(Response.side)))


def set_styles(house: House, view: ComparisonView, first: str | None, second: str | None) -> None:
    """What the draw came to, decided afterwards."""
    with house.database.write() as session:
        for side, style in (("A", first), ("B", second)):
            session.execute(
                update(Response)
                .where(Response.comparison_id == comparison_id(view), Response.side == side)
                .values(style=style)
            )


def test_both_sides_are_made_along_directions_and_asked_with_no_wish(
    house: House, engine: Listening
) -> None:
    user = house.user("mia")
    for _ in range(6):
        engine.asked.clear()
        view = judge(house, user)
        made = responses_of(house, view)
        assert [r.condition for r in made] == ["generic", "generic"]
        assert made[0].style != made[1].style
        for request, response in zip(engine.asked, made, strict=True):
            assert request.messages == ({"role": "user", "content": view.prompt},)
            assert request.condition is Condition.GENERIC
            assert request.style == DIRECTIONS.get(response.style or "")


def test_a_side_is_written_again_along_its_direction(house: House, engine: Listening) -> None:
    user = house.user("mia")
    engine.mute = True
    view = last(house.desk.stream(user))
    engine.mute = False
    set_styles(house, view, "list", "as it comes")
    for side, style in (("A", DIRECTIONS["list"]), ("B", None)):
        house.desk.write_again(user, comparison_id(view), side)
        assert engine.asked[-1].style == style
        assert engine.asked[-1].messages == ({"role": "user", "content": view.prompt},)
        assert engine.asked[-1].condition is Condition.GENERIC


def test_a_style_that_is_gone_breaks_nothing(house: House, engine: Listening) -> None:
    user = house.user("mia")
    engine.mute = True
    view = last(house.desk.stream(user))
    engine.mute = False
    set_styles(house, view, "with examples", "list")
    house.desk.write_again(user, comparison_id(view), "A")
    assert engine.asked[-1].style is None
    house.desk.choose(user, comparison_id(view), "a")
    assert last(house.desk.stream(user)).prompt
    with house.database.read() as session:
        assert records_of(session, user)["with examples"] == Record(won=1)
        (record,) = records_for_round(session, STYLES, [user], house.clock()).values()
    assert record == as_record(list=(0, 1))


def as_record(**counts: tuple[int, int]) -> StyleRecord:
    return tuple(counts.get(name.replace(" ", "_"), (0, 0)) for name in ORDER)


def test_a_round_is_told_what_its_users_prefer_and_nothing_unscored(house: House) -> None:
    mia, ben = house.user("mia"), house.user("ben")

    def prefers(user: int, liked: str, passed: str) -> None:
        view = judge(house, user)
        set_styles(house, view, liked, passed)

    prefers(mia, "list", "as it comes")
    prefers(mia, "plain words", "list")
    prefers(ben, "brief", "full")
    until = house.clock()
    prefers(mia, "warm", "list")
    expected = as_record(list=(1, 1), as_it_comes=(0, 1), plain_words=(1, 0))
    with house.database.read() as session:
        told = records_for_round(session, STYLES, [mia, ben, mia], until)
        assert told == {mia: expected, ben: as_record(brief=(1, 0), full=(0, 1))}
        later = records_for_round(session, STYLES, [mia], house.clock())
    assert later[mia] == as_record(list=(1, 2), as_it_comes=(0, 1), plain_words=(1, 0), warm=(1, 0))


def test_a_choice_is_foreseen_by_the_record_of_earlier_ones_alone(house: House) -> None:
    mia, ben = house.user("mia"), house.user("ben")

    def prefers(user: int, liked: str | None, passed: str | None) -> None:
        view = judge(house, user)
        set_styles(house, view, liked, passed)

    prefers(mia, "list", "brief")
    prefers(ben, "brief", "list")
    prefers(mia, "list", "brief")
    prefers(mia, "brief", "warm")
    prefers(mia, None, None)  # made in no styles
    Scorer(house.database, house.engine, clock=house.clock, records=True).run()
    with house.database.read() as session:
        rows = session.scalars(select(PrequentialScore).order_by(PrequentialScore.choice_id))
        said = [(row.user_id, row.personal_taste_nats) for row in rows]
    once, twice = math.log(2), math.log(3)
    assert said == [
        (mia, 0.0),
        (ben, 0.0),
        (mia, pytest.approx(2 * once)),
        (mia, pytest.approx(-twice)),  # brief had lost twice
        (mia, None),
    ]


def test_without_records_only_margins_foresee(house: House) -> None:
    view = judge(house, house.user("mia"))
    set_styles(house, view, "list", "brief")
    Scorer(house.database, house.engine, clock=house.clock).run()
    with house.database.read() as session:
        (row,) = session.scalars(select(PrequentialScore))
    assert (row.personal_taste_nats, row.wrong_taste_nats) == (None, None)


@pytest.mark.parametrize("user_model", ["styled", "individual", "cluster"])
def test_only_the_styled_model_is_told_and_only_of_users_who_learn(
    house: House, user_model: UserModelKind
) -> None:
    mia, ben = house.user("mia"), house.user("ben")
    set_styles(house, judge(house, mia), "list", "brief")
    set_styles(house, judge(house, ben), "warm", "brief")
    with house.database.write() as session:  # his is held out: he does not learn
        session.execute(update(Comparison).where(Comparison.user_id == ben).values(purpose="blind"))
    trainer = Refusing()
    with ExitStack() as closing:
        training = Training(
            house.database,
            trainer,
            house.versions,
            Lease(house.database, "here:1:0", clock=house.clock),
            identity=house.engine.model_identity,
            config=TrainConfig(user_model=user_model),
            limits=RoundLimits(new=20, replay=4, user_cap=20),
            min_choices=1,
            max_wait=timedelta(minutes=30),
            timeout_s=10,
            clock=house.clock,
            styles=STYLES,
        )
        closing.callback(training.close)
        training.tick()
        training.wait(10)
    (request,) = trainer.requests
    assert {pair.user_id for pair in request.pairs} == {mia}
    assert len(request.held_out) == 1
    told = {mia: as_record(list=(1, 0), brief=(0, 1))} if user_model == "styled" else {}
    assert request.style_records == told
