"""Several drafts of a personal response: when they are made, which is kept, who sees what."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from backend.comparisons import bank_prompt
from backend.drafts import best_of
from backend.engines.base import Condition, EngineFailed, Priority
from backend.engines.echo import EchoEngine
from backend.errors import InvalidInput, Unavailable
from backend.plans import Shares
from backend.styles import load_styles, with_directions
from backend.taste_model import taste_from
from backend.under_way import Making
from db.models import Comparison, Response
from db.session import Database
from tests.backend.echo_house import House, comparison_id, judge, last, open_house, row
from tests.backend.judged import Judged
from tests.backend.listening import ByHand, Listening
from tests.conftest import Clock

STYLES = load_styles()
DIRECTIONS = {style.name: index for index, style in enumerate(with_directions(STYLES))}
SHORT = "Air scatters blueness sideways."
MIDDLE = "The air scatters blue light more than red."
LONG = "The air scatters blue light far more than it does red light, which goes straight through."
LIMIT_S = 20.0
BLIND, BASE = Shares(blind=1, base=0), Shares(blind=0, base=1)
Open = Callable[..., House]


@pytest.fixture
def open_(database: Database, clock: Clock, tmp_path: Path) -> Iterator[Open]:
    """Houses in which a personal response is the best of four."""
    with ExitStack() as closing:

        def make(engine: EchoEngine, shares: Shares, **options: object) -> House:
            chosen = {"drafts": 4, **options}
            house = open_house(database, clock, tmp_path, engine=engine, shares=shares, **chosen)  # type: ignore[arg-type]
            return closing.enter_context(house)

        yield make


def taught(house: House, name: str = "mia", texts: tuple[str, str] = (SHORT, LONG)) -> int:
    """A user who has chosen the first of these texts a few times."""
    judged = Judged(house.database, house.clock)
    user = house.user(name)
    assert house.engine.live_version is not None
    for _ in range(4):
        pair = judged.comparison(user, house.engine.live_version.version_id, texts=texts)
        judged.choice(user, pair, "a")
    return user


def start(
    house: House, user: int, *, shown: bool = False, priority: Priority = Priority.PREFETCH
) -> Making:
    prompt = bank_prompt(house.database, house.maker, user, random.Random(1))
    return house.maker.start(user, prompt, priority, shown=shown)


def stored(house: House, making: Making) -> dict[str, Response]:
    """By condition, once they are in the database."""
    comparison = making.comparison_id(LIMIT_S)
    with house.database.read() as session:
        rows = session.scalars(select(Response).where(Response.comparison_id == comparison))
        return {response.condition: response for response in rows}


def texts_for(making: Making, personal: list[str], other: str) -> list[str]:
    """Texts in the order of the requests: side A's drafts before side B's."""
    if making.plan.conditions[0] is Condition.PERSONAL:
        return [*personal, other]
    return [other, *personal]


@pytest.mark.parametrize("shares", [BLIND, BASE], ids=["blind", "base"])
def test_a_pair_made_ahead_keeps_the_best_of_its_personal_drafts(
    open_: Open, shares: Shares
) -> None:
    engine = ByHand()
    house = open_(engine, shares)
    user = taught(house)
    for nth in range(6):  # on either side
        making = start(house, user)
        call = engine.calls[-1]
        other = next(one for one in making.plan.conditions if one is not Condition.PERSONAL)
        assert [r.condition for r in call.requests].count(Condition.PERSONAL) == 4
        assert len(call.requests) == 5
        assert all(r.messages == making.prompt.messages for r in call.requests)
        best = nth % 4
        personal = [SHORT if draft == best else (LONG, MIDDLE)[draft % 2] for draft in range(4)]
        call.say(texts_for(making, personal, f"{SHORT} So."))
        made = stored(house, making)
        assert (made["personal"].text, made["personal"].drafts) == (SHORT, 4)
        assert (made[other.value].text, made[other.value].drafts) == (f"{SHORT} So.", 1)
        seeds = [r.sampling.seed for r in call.requests if r.condition is Condition.PERSONAL]
        assert made["personal"].seed == seeds[best]
        assert seeds[0] == making.plan.seeds[making.plan.conditions.index(Condition.PERSONAL)]
        assert len(set(seeds)) == 4
        assert made["personal"].token_ids == list(range(5, 9))
        assert row(house, made["personal"].comparison_id).shown_at is None
    assert {making.plan.conditions[0] for making in [start(house, user) for _ in range(12)]} == {
        Condition.PERSONAL,
        other,
    }


def test_whoever_likes_the_contrary_gets_the_contrary(open_: Open) -> None:
    engine = ByHand()
    house = open_(engine, BLIND)
    for user, liked in (
        (taught(house, "mia", (SHORT, LONG)), SHORT),
        (taught(house, "ben", (LONG, SHORT)), LONG),
    ):
        making = start(house, user)
        engine.calls[-1].say(texts_for(making, [MIDDLE, LONG, SHORT, MIDDLE], MIDDLE))
        assert stored(house, making)["personal"].text == liked


def test_what_an_engine_wrote_is_ranked_as_it_wrote_it(open_: Open) -> None:
    engine = Listening()
    house = open_(engine, BLIND, drafts=6)
    user = taught(house)
    taste = taste_from([(SHORT, LONG)] * 4)
    differing = 0
    for _ in range(6):
        making = start(house, user)
        written = making.generation.result(LIMIT_S)
        begins = 0 if making.plan.conditions[0] is Condition.PERSONAL else 1
        drafts = written[begins : begins + 6]
        chosen = drafts[best_of([draft.text for draft in drafts], taste, making.prompt.text)]
        personal = stored(house, making)["personal"]
        assert (personal.text, tuple(personal.token_ids)) == (chosen.text, chosen.token_ids)
        differing += chosen.text != drafts[0].text
    assert differing


@pytest.mark.parametrize("why", ["watched", "stranger", "learn", "off"])
def test_where_nothing_is_to_be_ranked_there_is_one_draft(open_: Open, why: str) -> None:
    engine = Listening()
    shares = Shares(blind=0, base=0) if why == "learn" else BLIND
    house = open_(engine, shares, drafts=1 if why == "off" else 4)
    user = house.user("jo") if why == "stranger" else taught(house)
    for _ in range(3):
        engine.asked.clear()
        making = start(house, user, shown=why == "watched")
        making.comparison_id(LIMIT_S)
        assert [r.sampling.seed for r in engine.asked] == list(making.plan.seeds)
    with house.database.read() as session:
        assert set(session.scalars(select(Response.drafts))) == {1}


def test_nobody_watches_what_is_written_for_a_persona(open_: Open) -> None:
    house = open_(EchoEngine(), BLIND)
    making = start(house, taught(house), shown=True, priority=Priority.SIMULATED)
    assert stored(house, making)["personal"].drafts == 4


def test_a_user_ceases_to_be_a_stranger_with_the_first_choice_that_may_be_learnt_from(
    open_: Open,
) -> None:
    engine = Listening()
    house = open_(engine, BLIND)
    user = house.user("mia")
    judge(house, user)  # a blind pair: nothing is learnt from it
    engine.asked.clear()
    start(house, user).comparison_id(LIMIT_S)
    assert len(engine.asked) == 2
    judged = Judged(house.database, house.clock)
    assert house.engine.live_version is not None
    pair = judged.comparison(user, house.engine.live_version.version_id, texts=(SHORT, LONG))
    judged.choice(user, pair, "a")
    engine.asked.clear()
    start(house, user).comparison_id(LIMIT_S)
    assert len(engine.asked) == 5


def test_with_directions_further_drafts_are_made_along_them(open_: Open) -> None:
    engine = ByHand()
    house = open_(engine, BLIND, drafts=6, styles=STYLES, directions=DIRECTIONS)
    user = taught(house)
    kept = set()
    for nth in range(6):
        making = start(house, user)
        call = engine.calls[-1]
        mine = [r for r in call.requests if r.condition is Condition.PERSONAL]
        (other,) = (r for r in call.requests if r.condition is not Condition.PERSONAL)
        assert [mine[0].style, mine[1].style, other.style] == [None] * 3
        along = [request.style for request in mine[2:]]
        assert all(along[n] != along[n + 1] for n in (0, 2)), "two at a time, never one twice"
        call.say(texts_for(making, [SHORT if n == nth else LONG for n in range(6)], LONG))
        personal = stored(house, making)["personal"]
        assert personal.seed == mine[nth].sampling.seed
        assert personal.condition == "personal"
        if nth < 2:
            assert personal.style is None
        else:
            assert personal.style is not None
            assert DIRECTIONS.get(personal.style) == mine[nth].style
            kept.add(personal.style)
    assert kept


def test_without_directions_no_draft_is_asked_with_a_wish(open_: Open) -> None:
    engine = Listening()
    house = open_(engine, BLIND, styles=STYLES)
    making = start(house, taught(house))
    making.comparison_id(LIMIT_S)
    assert len(engine.asked) == 5
    assert all(request.messages == making.prompt.messages for request in engine.asked)
    assert stored(house, making)["personal"].style is None


def test_nobody_sees_drafts_grow(open_: Open) -> None:
    engine = ByHand()
    house = open_(engine, BLIND)
    user = taught(house)
    making = start(house, user)
    call = engine.calls[-1]
    call.generation.show(["Growing words that are enough to choose by."] * 5)
    views = house.desk.stream(user)  # it was made ahead; now somebody came
    first = next(views)
    assert first.making_key == making.key
    assert (first.text_a, first.text_b, first.judgeable) == ("", "", False)
    assert making.latest == ("", "")
    for act in (
        lambda: house.desk.choose_early(user, making.key, "a"),
        lambda: house.desk.stop(user, making.key),
    ):
        with pytest.raises(InvalidInput, match="too little"):
            act()
    call.say(texts_for(making, [LONG, MIDDLE, SHORT, LONG], MIDDLE))
    rest = list(views)
    expected = {SHORT, MIDDLE}
    assert {view.text_a for view in rest} | {view.text_b for view in rest} == expected
    assert set(making.latest) == expected
    assert rest[-1].complete
    assert row(house, comparison_id(rest[-1])).shown_at == house.clock()
    with house.database.read() as session:
        assert session.scalar(select(func.max(Response.drafts))) == 4


def test_what_was_stopped_is_the_best_of_what_there_was(open_: Open) -> None:
    engine = Listening(word_delay_s=0.05)
    house = open_(engine, BLIND)
    user = taught(house)
    making = start(house, user)
    for texts in making.generation.stream():
        if all(len(text.split()) > 2 for text in texts):
            break
    making.stop()
    written = making.generation.result(LIMIT_S)
    personal = stored(house, making)["personal"]
    assert personal.drafts == 4
    assert personal.text in {draft.text for draft in written}
    assert not personal.ended
    assert row(house, personal.comparison_id).stopped_at == house.clock()


def test_a_pair_is_cut_only_where_what_was_kept_of_it_is(open_: Open) -> None:
    engine = ByHand()
    house = open_(engine, BLIND)
    user = taught(house)
    for kept_ended in (True, False):
        making = start(house, user)
        making.stop()
        call = engine.calls[-1]
        texts = texts_for(making, [LONG, SHORT, LONG, LONG], MIDDLE)
        call.say(texts, ended=[text == MIDDLE or (text == SHORT) == kept_ended for text in texts])
        personal = stored(house, making)["personal"]
        assert (personal.text, personal.ended) == (SHORT, kept_ended)
        assert (row(house, personal.comparison_id).stopped_at is None) is kept_ended


def test_a_model_that_fails_or_is_closed_leaves_nothing(open_: Open) -> None:
    engine = ByHand()
    house = open_(engine, BLIND)
    user = taught(house)
    before = house.rows(Comparison)

    def fail() -> None:
        engine.calls[-1].generation.fail(EngineFailed("out of memory"))

    for end in (fail, engine.close):
        making = start(house, user)
        end()
        with pytest.raises(Unavailable):
            list(making.texts())
        with pytest.raises(Unavailable):
            making.comparison_id(LIMIT_S)
    assert making.latest == ("", "")
    assert house.rows(Comparison) == before
    assert house.maker.under_way(user) == ()


def test_an_empty_best_of_nothing_is_written_again_as_one(open_: Open) -> None:
    engine = Listening()
    house = open_(engine, BLIND)
    user = taught(house)
    engine.mute = True
    making = start(house, user)
    assert {(one.text, one.drafts) for one in stored(house, making).values()} == {("", 4), ("", 1)}
    engine.mute = False
    view = last(house.desk.stream(user))
    side = "AB"[making.plan.conditions.index(Condition.PERSONAL)]
    house.desk.write_again(user, comparison_id(view), side)
    personal = stored(house, making)["personal"]
    assert personal.text
    assert (personal.drafts, personal.attempts) == (1, 2)


def test_how_long_drafts_took_is_not_how_long_one_waits(open_: Open) -> None:
    engine = ByHand()
    house = open_(engine, BLIND)
    user = taught(house)
    with house.database.write() as session:  # what taught the taste took no time
        session.execute(update(Response).values(seconds=2.0))
    making = start(house, user)
    engine.calls[-1].say([LONG] * 5, seconds=60.0)
    making.comparison_id(LIMIT_S)
    assert house.maker.usual_seconds() == pytest.approx(2.0)
    making = start(house, user, shown=True)
    engine.calls[-1].say([LONG] * 2, seconds=7.0)
    making.comparison_id(LIMIT_S)
    assert house.maker.usual_seconds() == pytest.approx((8 * 2 + 2 * 7) / 10)


def test_the_same_house_makes_the_same_drafts(open_: Open) -> None:
    seeds = []
    for number in range(2):
        engine = Listening()
        house = open_(engine, BLIND, drafts=6, styles=STYLES, directions=DIRECTIONS)
        start(house, taught(house, f"mia {number}")).comparison_id(LIMIT_S)
        seeds.append([(r.sampling.seed, r.style, r.condition) for r in engine.asked])
    assert seeds[0] == seeds[1]
