"""Personas at work: on a real desk with the echo engine, on both databases."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from backend import prompts
from backend.administration import Administration
from backend.auth import Accounts, CurrentUser
from backend.comparisons import Desk
from backend.engines.base import Priority, Sampling
from backend.engines.echo import EchoEngine
from backend.errors import Conflict, InvalidInput, NotAllowed
from backend.making import Maker
from backend.persona_cast import Persona
from backend.persona_rules import RULES
from backend.personas import Personas
from backend.plans import Shares
from backend.versions import Versions
from db.models import Choice, Comparison, Prompt, Response, User
from db.session import Database
from dev.waiting import wait_for
from tests.backend.people import GOOD, HOME
from tests.conftest import Clock

PAIR = ("shorter", "longer")


@dataclass
class House:
    database: Database
    desk: Desk
    engine: EchoEngine
    accounts: Accounts
    closing: ExitStack

    def personas(self, limit: int | None = 3, noise: float = 0.0, **options: int) -> Personas:
        made = Personas(
            self.desk, self.accounts, rng=random.Random(5), limit=limit, noise=noise, **options
        )
        self.closing.callback(made.close)
        self.closing.callback(made.stop)
        return made

    def users(self) -> dict[str, User]:
        with self.database.read() as session:
            return {user.username: user for user in session.scalars(select(User))}

    def choices(self) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(Choice)) or 0


@pytest.fixture
def make_house(
    database: Database, clock: Clock, tmp_path: Path, accounts: Accounts
) -> Iterator[Callable[..., House]]:
    with ExitStack() as closing:

        def make(word_delay_s: float = 0.0) -> House:
            prompts.import_bank(database, clock())
            engine = EchoEngine(word_delay_s=word_delay_s)
            versions = Versions(database, engine, tmp_path, clock=clock)
            versions.ensure_initial()
            versions.follow()
            maker = Maker(
                database,
                engine,
                sampling=Sampling(max_new_tokens=60),
                shares=Shares(blind=0.2, base=0.2),
                clock=clock,
                rng=random.Random(3),
            )
            desk = Desk(
                database,
                maker,
                max_prompt_chars=100,
                clock=clock,
                rng=random.Random(4),
                pair_taken=lambda _user: None,
                priority=Priority.SIMULATED,
            )
            closing.callback(maker.close)
            closing.callback(engine.close)
            return House(database, desk, engine, accounts, closing)

        yield make


@pytest.fixture
def house(make_house: Callable[..., House]) -> House:
    return make_house()


def finish(personas: Personas) -> None:
    wait_for(lambda: not personas.running().active)
    personas.close()


def test_they_choose_by_their_rule_until_the_limit(house: House) -> None:
    personas = house.personas(limit=4)
    personas.start(PAIR)
    finish(personas)
    running = personas.running()
    assert (running.active, running.limit) == (False, 4)
    assert [(row.persona.rule, row.choices) for row in running.rows] == [
        ("shorter", 4),
        ("longer", 4),
    ]
    with house.database.read() as session:
        told = session.execute(
            select(User.username, Choice.verdict, Response.text)
            .join(Choice, Choice.user_id == User.id)
            .join(Response, Response.comparison_id == Choice.comparison_id)
            .order_by(Choice.id, Response.side)
        ).all()
    assert len(told) == 16
    for (name, verdict, a), (_, _, b) in zip(told[::2], told[1::2], strict=True):
        rule = RULES[name.removeprefix("persona: ")]
        assert {"a": 1, "tie": 0, "b": -1}[verdict] == rule.prefers(a, b)


def test_their_accounts_are_labelled_and_have_no_way_in(house: House) -> None:
    personas = house.personas(limit=1, noise=0.25)
    personas.start(PAIR)
    finish(personas)
    user = house.users()["persona: shorter"]
    assert user.is_simulated
    assert user.persona == {"rule": "shorter", "noise": 0.25, "side_bias": 0.0}
    assert (user.password_hash, user.hf_subject, user.role) == (None, None, "annotator")
    for password in ("", GOOD):
        with pytest.raises(InvalidInput, match="do not go together"):
            house.accounts.sign_in("persona: shorter", password, address=HOME)
    with pytest.raises(InvalidInput, match="A name has"):
        house.accounts.sign_up("persona: warm", GOOD, address=HOME)


def test_they_go_on_with_the_account_they_had(house: House) -> None:
    before = None
    for noise in (0.0, 0.5):
        personas = house.personas(limit=2, noise=noise)
        personas.start(("warm",))
        finish(personas)
        user = house.users()["persona: warm"]
        assert before in (None, user.id)
        before = user.id
        assert user.persona is not None
        assert user.persona["noise"] == noise
    assert house.choices() == 4


def test_a_second_start_is_refused_while_they_choose(make_house: Callable[..., House]) -> None:
    house = make_house(word_delay_s=0.02)
    personas = house.personas(limit=None)
    personas.start(PAIR)
    with pytest.raises(Conflict, match="choosing already"):
        personas.start(PAIR)
    with pytest.raises(InvalidInput):
        personas.start(("no such rule",))
    personas.stop()
    personas.start(("warm", "sober"))
    assert [row.persona.rule for row in personas.running().rows] == ["warm", "sober"]


def test_stopping_is_prompt_and_the_pair_comes_back(make_house: Callable[..., House]) -> None:
    """A pair takes the better part of a second here; nobody waits for its end."""
    house = make_house(word_delay_s=0.05)
    personas = house.personas(limit=None)
    personas.start(PAIR)
    wait_for(lambda: house.choices() > 0)
    personas.stop()
    assert not personas.running().active
    made = [row.choices for row in personas.running().rows]
    personas.close()
    assert [row.choices for row in personas.running().rows] == made
    user = house.users()["persona: shorter"].id
    again = house.personas(limit=1)
    again.start(PAIR)
    finish(again)
    with house.database.read() as session:
        shown = session.scalars(select(Comparison.id).where(Comparison.user_id == user)).all()
        judged = session.scalars(select(Choice.comparison_id).where(Choice.user_id == user)).all()
    assert set(judged) == set(shown)


def test_when_the_engine_closes_they_end(make_house: Callable[..., House]) -> None:
    """As when the app is stopped: even one that waits for the first word of a pair."""
    house = make_house(word_delay_s=30.0)
    personas = house.personas(limit=None)
    personas.start(PAIR)
    wait_for(lambda: len(house.users()) == 2)
    personas.stop()
    closing = threading.Thread(target=house.engine.close)
    closing.start()
    personas.close()
    closing.join()
    assert house.choices() == 0


def test_what_is_not_there_now_is_tried_again(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    def prompts_active(active: bool) -> None:
        with house.database.write() as session:
            session.execute(update(Prompt).values(active=active))

    prompts_active(False)
    personas = house.personas(limit=1)
    with caplog.at_level(logging.WARNING, "backend.personas"):
        personas.start(("shorter",))
        wait_for(lambda: "tries again in 1 s: There is no prompt" in caplog.text)
    assert personas.running().active
    prompts_active(True)
    finish(personas)
    assert house.choices() == 1


def test_a_disabled_one_leaves_and_is_not_let_in_again(
    make_house: Callable[..., House], administration: Administration, admin: CurrentUser
) -> None:
    house = make_house(word_delay_s=0.002)
    personas = house.personas(limit=None)
    personas.start(PAIR)
    wait_for(lambda: house.choices() > 1)
    administration.disable(admin.id, house.users()["persona: shorter"].id)
    administration.disable(admin.id, house.users()["persona: longer"].id)
    finish(personas)
    with pytest.raises(NotAllowed, match="'persona: shorter' is disabled"):
        personas.start(PAIR)
    assert not personas.running().active


def test_a_persons_account_is_never_taken_over(house: House, clock: Clock) -> None:
    """Nobody can sign up under such a name; should one stand in the database all the same."""
    persona = Persona("warm")
    with house.database.write() as session:
        name = persona.username
        session.add(User(username=name, username_key=name, created_at=clock()))
    with pytest.raises(Conflict, match="a person's account"):
        house.personas().start(("warm",))


def test_several_choose_side_by_side(make_house: Callable[..., House]) -> None:
    """The engine has several comparisons to batch, and nobody gets far ahead."""
    house = make_house(word_delay_s=0.005)
    personas = house.personas(limit=None, side_by_side=2)
    personas.start(("shorter", "longer", "warm", "sober"))
    wait_for(lambda: house.choices() >= 8)
    personas.stop()
    counts = [row.choices for row in personas.running().rows]
    assert max(counts) - min(counts) <= 2
