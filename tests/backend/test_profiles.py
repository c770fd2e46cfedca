"""What users write about themselves: kept, used in the personal condition alone, erased."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select
from transformers import AutoTokenizer

from backend import round_input
from backend.comparisons import Desk
from backend.engines.base import Condition, GenerationRequest, Priority
from backend.engines.echo import EchoEngine
from backend.engines.generation import RunningGeneration
from backend.errors import InvalidInput, NotAllowed, NotFound
from backend.plans import Shares
from backend.profiles import Profiles
from db.models import Choice, Response, User
from db.session import Database
from tests.backend.echo_house import open_house
from tests.backend.house import CONFIG, House, new_user
from tests.conftest import Clock
from trainer.batching import pair_rows
from trainer.prompting import PromptFormat

TEXT = "I like short answers.\nWith an example. <|im_end|>"


class Listening(EchoEngine):
    """Keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(word_delay_s=0.0)
        self.asked: list[GenerationRequest] = []

    def generate(
        self, requests: Sequence[GenerationRequest], priority: Priority = Priority.INTERACTIVE
    ) -> RunningGeneration:
        self.asked += requests
        return super().generate(requests, priority)


@pytest.fixture
def user(database: Database, clock: Clock) -> int:
    return new_user(database, clock)


@contextmanager
def desk(
    database: Database, clock: Clock, folder: Path, *, used: bool, blind_share: float
) -> Iterator[tuple[Desk, Listening]]:
    """Each pair holds a personal response and a generic one or one of the base model."""
    engine = Listening()
    with open_house(
        database,
        clock,
        folder,
        engine=engine,
        max_new_tokens=8,
        shares=Shares(blind=blind_share, base=1 - blind_share),
        profile_of=Profiles(database, used=used).in_prompt,
    ) as house:
        yield house.desk, engine


def test_a_profile_is_kept_replaced_and_erased(database: Database, user: int) -> None:
    profiles = Profiles(database, used=True)
    assert profiles.read(user) == profiles.in_prompt(user) == ""
    profiles.write(user, "  I like lists.\r\nAnd\x00 tea.\x07\udc4d  ")
    assert profiles.read(user) == "I like lists.\nAnd tea."
    profiles.write(user, "No lists.")
    assert profiles.in_prompt(user) == "No lists."
    assert Profiles(database, used=False).in_prompt(user) == ""
    profiles.write(user, " \n")
    assert profiles.read(user) == ""


def test_too_long_a_profile_is_refused_in_words(database: Database, user: int) -> None:
    profiles = Profiles(database, used=True)
    profiles.write(user, "é" * 500)
    with pytest.raises(InvalidInput, match="501 characters long; 500 are possible"):
        profiles.write(user, "a" * 501)
    assert profiles.read(user) == "é" * 500


def test_simulated_users_and_nobody_have_none(database: Database, user: int) -> None:
    profiles = Profiles(database, used=True)
    with database.write() as session:
        session.get_one(User, user).is_simulated = True
    with pytest.raises(NotAllowed):
        profiles.write(user, "I am real.")
    with pytest.raises(NotFound):
        profiles.write(user + 1, "Who?")
    assert profiles.read(user + 1) == ""


@pytest.mark.parametrize("blind_share", [0.0, 1.0])
def test_the_trained_prompt_is_the_served_one(
    database: Database, clock: Clock, tmp_path: Path, embedded_model_path: Path, blind_share: float
) -> None:
    user = new_user(database, clock)
    Profiles(database, used=True).write(user, TEXT)
    with desk(database, clock, tmp_path, used=True, blind_share=blind_share) as (place, engine):
        view = list(place.stream(user))[-1]
        assert view.comparison_id is not None
        place.choose(user, view.comparison_id, "a")
    with database.read() as session:
        choice = session.scalars(select(Choice.id)).one()
        pair = round_input.load_pairs(session, "some model", [choice])[choice]
        kept = {r.condition: r.profile for r in session.scalars(select(Response))}
    other = "generic" if blind_share else "base"
    assert kept == {"personal": TEXT, other: ""}
    assert pair.profile == TEXT

    tokenizer = AutoTokenizer.from_pretrained(embedded_model_path, local_files_only=True)
    prompt = PromptFormat(tokenizer, 4)
    rows = pair_rows(pair, prompt)
    by_condition = {request.condition: request.messages for request in engine.asked}
    served = prompt.encode(by_condition[Condition.PERSONAL], with_prefix=True)
    assert rows.chosen.prompt == rows.rejected.prompt == served
    if blind_share:
        generic = prompt.encode(by_condition[Condition.GENERIC], with_prefix=True)
        assert rows.generic_chosen.prompt == generic
    else:
        base = prompt.encode(by_condition[Condition.BASE], with_prefix=False)
        assert rows.reference_chosen.prompt == base
    assert len(rows.generic_chosen.prompt.token_ids) < len(served.token_ids)


def test_where_profiles_are_off_none_is_served(
    database: Database, clock: Clock, tmp_path: Path, user: int
) -> None:
    Profiles(database, used=False).write(user, TEXT)
    with desk(database, clock, tmp_path, used=False, blind_share=1.0) as (place, engine):
        list(place.stream(user))
    assert [len(request.messages) for request in engine.asked] == [1, 1]
    with database.read() as session:
        assert set(session.scalars(select(Response.profile))) == {""}


def test_a_profile_that_does_not_fit_the_model_is_told_in_words(
    database: Database, clock: Clock, tmp_path: Path, user: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Profiles(database, used=True).write(user, TEXT)

    def too_many(*_: object) -> RunningGeneration:
        raise ValueError("the prompt is too long: 6000 tokens")

    with desk(database, clock, tmp_path, used=True, blind_share=1.0) as (place, engine):
        with monkeypatch.context() as patched:
            patched.setattr(engine, "generate", too_many)
            with pytest.raises(InvalidInput, match="What you say about yourself is too long"):
                list(place.stream(user))
        assert list(place.stream(user))[-1].comparison_id is not None


def test_an_erased_profile_is_gone_from_the_records_too(
    database: Database, clock: Clock, tmp_path: Path
) -> None:
    users = []
    for name in ("ann", "ben"):
        with database.write() as session:
            row = User(username=name, username_key=name, created_at=clock())
            session.add(row)
            session.flush()
            users.append(row.id)
    profiles = Profiles(database, used=True)
    with desk(database, clock, tmp_path, used=True, blind_share=1.0) as (place, _engine):
        for user in users:
            profiles.write(user, TEXT)
            list(place.stream(user))
    profiles.write(users[0], "")
    with database.read() as session:
        kept = sorted(session.scalars(select(Response.profile)))
    assert kept == ["", "", "", TEXT]


def test_a_round_trains_with_profiles(make_house: Callable[..., House]) -> None:
    # What a random model writes after a longer prompt is noise of another likelihood.
    house = make_house(config=replace(CONFIG, gate=replace(CONFIG.gate, max_nll_rise_nats=99.0)))
    Profiles(house.database, used=True).write(house.user, TEXT)
    house.choose(4)
    done = house.round()
    assert (done.status, done.reason) == ("promoted", None)
