"""The styled user model at work: pairs along directions, and the shares a round is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from backend.comparison_views import ComparisonView
from backend.engines.base import Condition
from backend.lease import Lease
from backend.plans import Shares
from backend.round_input import RoundLimits
from backend.styles import load_styles, style_shares, with_directions
from backend.taste_model import taste_from
from backend.training import Training
from backend.user_tastes import shares_for_round
from db.models import Comparison, Response
from db.session import Database
from tests.backend.echo_house import House, comparison_id, judge, last, open_house
from tests.backend.listening import Listening
from tests.conftest import Clock
from trainer.config import TrainConfig, UserModelKind
from trainer.types import Progress, RoundFailed, RoundRequest, RoundResult, StyleShares

STYLES = load_styles()
DIRECTIONS = {style.name: index for index, style in enumerate(with_directions(STYLES))}
LISTED, PLAIN = "1. Sun: light.\n2. Air: scatters.", "Air scatters blue light, so it looks blue."
SHORT, WARM = "Air does it.", "You and I, my friend, can see it together, my dear!"


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


def set_texts(house: House, view: ComparisonView, first: str, second: str) -> None:
    """What the engine said, decided afterwards."""
    with house.database.write() as session:
        for side, text in (("A", first), ("B", second)):
            session.execute(
                update(Response)
                .where(Response.comparison_id == comparison_id(view), Response.side == side)
                .values(text=text)
            )


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
        (shares,) = shares_for_round(session, STYLES, [user], house.clock()).values()
    assert len(shares) == len(DIRECTIONS)


def shares_after(*choices: tuple[str, str]) -> StyleShares:
    return style_shares(STYLES, taste_from(choices))


def test_a_round_is_told_what_its_users_prefer_and_nothing_unscored(house: House) -> None:
    mia, ben, jo = house.user("mia"), house.user("ben"), house.user("jo")

    def prefers(user: int, liked: str, passed: str) -> None:
        set_texts(house, judge(house, user), liked, passed)

    prefers(mia, LISTED, PLAIN)
    prefers(mia, LISTED, WARM)
    prefers(ben, SHORT, WARM)
    until = house.clock()
    prefers(mia, WARM, LISTED)
    known = shares_after((LISTED, PLAIN), (LISTED, WARM))
    with house.database.read() as session:
        told = shares_for_round(session, STYLES, [mia, ben, mia, jo], until)
        later = shares_for_round(session, STYLES, [mia], house.clock())
    stranger = (0.0,) * len(DIRECTIONS)
    assert told == {mia: known, ben: shares_after((SHORT, WARM)), jo: stranger}
    assert max(known) == known[DIRECTIONS["list"]] > 0.3
    assert later == {mia: shares_after((LISTED, PLAIN), (LISTED, WARM), (WARM, LISTED))}
    assert later[mia] != known


@pytest.mark.parametrize("user_model", ["styled", "individual", "cluster"])
def test_only_the_styled_model_is_told_and_only_of_users_who_learn(
    house: House, user_model: UserModelKind
) -> None:
    mia, ben = house.user("mia"), house.user("ben")
    set_texts(house, judge(house, mia), LISTED, PLAIN)
    set_texts(house, judge(house, ben), WARM, PLAIN)
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
    told = {mia: shares_after((LISTED, PLAIN))} if user_model == "styled" else {}
    assert request.style_shares == told
