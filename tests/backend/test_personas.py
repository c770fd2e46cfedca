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
from sqlalchemy import select, update

from backend.administration import Administration
from backend.auth import Accounts, CurrentUser
from backend.engines.base import Priority
from backend.errors import Conflict, InvalidInput, NotAllowed
from backend.persona_cast import Persona
from backend.persona_rules import RULES
from backend.personas import Personas
from db.models import Choice, Comparison, Prompt, Response, User
from db.session import Database
from dev.waiting import wait_for
from tests.backend.echo_house import House, open_house
from tests.backend.people import GOOD, HOME
from tests.conftest import Clock

PAIR = ("shorter", "longer")


@dataclass
class Cast:
    """Personas at the desk of `house`."""

    house: House
    accounts: Accounts
    closing: ExitStack

    def personas(self, limit: int | None = 3, noise: float = 0.0, **options: int) -> Personas:
        made = Personas(
            self.house.desk,
            self.accounts,
            rng=random.Random(5),
            limit=limit,
            noise=noise,
            **options,
        )
        self.closing.callback(made.close)
        self.closing.callback(made.stop)
        return made

    def users(self) -> dict[str, User]:
        with self.house.database.read() as session:
            return {user.username: user for user in session.scalars(select(User))}

    def choices(self) -> int:
        return self.house.rows(Choice)


@pytest.fixture
def make_cast(
    database: Database, clock: Clock, tmp_path: Path, accounts: Accounts
) -> Iterator[Callable[..., Cast]]:
    with ExitStack() as closing:

        def make(word_delay_s: float = 0.0) -> Cast:
            house = open_house(
                database,
                clock,
                tmp_path,
                word_delay_s=word_delay_s,
                max_new_tokens=60,
                priority=Priority.SIMULATED,
            )
            return Cast(closing.enter_context(house), accounts, closing)

        yield make


@pytest.fixture
def cast(make_cast: Callable[..., Cast]) -> Cast:
    return make_cast()


def finish(personas: Personas) -> None:
    wait_for(lambda: not personas.running().active)
    personas.close()


def test_they_choose_by_their_rule_until_the_limit(cast: Cast) -> None:
    personas = cast.personas(limit=4)
    personas.start(PAIR)
    finish(personas)
    running = personas.running()
    assert (running.active, running.limit) == (False, 4)
    assert [(row.persona.rule, row.choices) for row in running.rows] == [
        ("shorter", 4),
        ("longer", 4),
    ]
    with cast.house.database.read() as session:
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


def test_their_accounts_are_labelled_and_have_no_way_in(cast: Cast) -> None:
    personas = cast.personas(limit=1, noise=0.25)
    personas.start(PAIR)
    finish(personas)
    user = cast.users()["persona: shorter"]
    assert user.is_simulated
    assert user.persona == {"rule": "shorter", "noise": 0.25, "side_bias": 0.0}
    assert (user.password_hash, user.hf_subject, user.role) == (None, None, "annotator")
    for password in ("", GOOD):
        with pytest.raises(InvalidInput, match="do not go together"):
            cast.accounts.sign_in("persona: shorter", password, address=HOME)
    with pytest.raises(InvalidInput, match="A name has"):
        cast.accounts.sign_up("persona: warm", GOOD, address=HOME)


def test_they_go_on_with_the_account_they_had(cast: Cast) -> None:
    before = None
    for noise in (0.0, 0.5):
        personas = cast.personas(limit=2, noise=noise)
        personas.start(("warm",))
        finish(personas)
        user = cast.users()["persona: warm"]
        assert before in (None, user.id)
        before = user.id
        assert user.persona is not None
        assert user.persona["noise"] == noise
    assert cast.choices() == 4


def test_a_second_start_is_refused_while_they_choose(make_cast: Callable[..., Cast]) -> None:
    cast = make_cast(word_delay_s=0.02)
    personas = cast.personas(limit=None)
    personas.start(PAIR)
    with pytest.raises(Conflict, match="choosing already"):
        personas.start(PAIR)
    with pytest.raises(InvalidInput):
        personas.start(("no such rule",))
    personas.stop()
    personas.start(("warm", "sober"))
    assert [row.persona.rule for row in personas.running().rows] == ["warm", "sober"]


def test_stopping_is_prompt_and_the_pair_comes_back(make_cast: Callable[..., Cast]) -> None:
    """A pair takes the better part of a second here; nobody waits for its end."""
    cast = make_cast(word_delay_s=0.02)
    personas = cast.personas(limit=None)
    personas.start(PAIR)
    wait_for(lambda: cast.choices() > 0)
    personas.stop()
    assert not personas.running().active
    made = [row.choices for row in personas.running().rows]
    personas.close()
    assert [row.choices for row in personas.running().rows] == made
    user = cast.users()["persona: shorter"].id
    again = cast.personas(limit=1)
    again.start(PAIR)
    finish(again)
    with cast.house.database.read() as session:
        shown = session.scalars(select(Comparison.id).where(Comparison.user_id == user)).all()
        judged = session.scalars(select(Choice.comparison_id).where(Choice.user_id == user)).all()
    assert set(judged) == set(shown)


def test_when_the_engine_closes_they_end(make_cast: Callable[..., Cast]) -> None:
    """As when the app is stopped: even one that waits for the first word of a pair."""
    cast = make_cast(word_delay_s=30.0)
    personas = cast.personas(limit=None)
    personas.start(PAIR)
    wait_for(lambda: len(cast.users()) == 2)
    personas.stop()
    closing = threading.Thread(target=cast.house.engine.close)
    closing.start()
    personas.close()
    closing.join()
    assert cast.choices() == 0


def test_what_is_not_there_now_is_tried_again(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    def prompts_active(active: bool) -> None:
        with cast.house.database.write() as session:
            session.execute(update(Prompt).values(active=active))

    prompts_active(False)
    personas = cast.personas(limit=1)
    with caplog.at_level(logging.WARNING, "backend.personas"):
        personas.start(("shorter",))
        wait_for(lambda: "tries again in 1 s: There is no prompt" in caplog.text)
    assert personas.running().active
    prompts_active(True)
    finish(personas)
    assert cast.choices() == 1


def test_a_disabled_one_leaves_and_is_not_let_in_again(
    make_cast: Callable[..., Cast], administration: Administration, admin: CurrentUser
) -> None:
    cast = make_cast(word_delay_s=0.002)
    personas = cast.personas(limit=None)
    personas.start(PAIR)
    wait_for(lambda: cast.choices() > 1)
    administration.disable(admin.id, cast.users()["persona: shorter"].id)
    administration.disable(admin.id, cast.users()["persona: longer"].id)
    finish(personas)
    with pytest.raises(NotAllowed, match="'persona: shorter' is disabled"):
        personas.start(PAIR)
    assert not personas.running().active


def test_a_persons_account_is_never_taken_over(cast: Cast, clock: Clock) -> None:
    """Nobody can sign up under such a name; should one stand in the database all the same."""
    persona = Persona("warm")
    with cast.house.database.write() as session:
        name = persona.username
        session.add(User(username=name, username_key=name, created_at=clock()))
    with pytest.raises(Conflict, match="a person's account"):
        cast.personas().start(("warm",))


def test_several_choose_side_by_side(make_cast: Callable[..., Cast]) -> None:
    """The engine has several comparisons to batch, and nobody gets far ahead."""
    cast = make_cast(word_delay_s=0.005)
    personas = cast.personas(limit=None, side_by_side=2)
    personas.start(("shorter", "longer", "warm", "sober"))
    wait_for(lambda: cast.choices() >= 8)
    personas.stop()
    counts = [row.choices for row in personas.running().rows]
    assert max(counts) - min(counts) <= 2
