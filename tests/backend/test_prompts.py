"""The prompt bank in a database, and what becomes of it when prompts get another ending."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import func, select

from backend import prompts, round_input
from backend.errors import Unavailable
from backend.shipped_prompts import USUAL_ENDING, shipped
from backend.styles import load_styles
from db.models import Comparison, Prompt, UnwantedPrompt
from db.session import Database
from tests.backend.echo_house import House, comparison_id, judge, last, open_house
from tests.conftest import Clock

BRIEFLY = "Be brief."


@pytest.fixture
def house(database: Database, clock: Clock, tmp_path: Path) -> Iterator[House]:
    """A desk whose bank has no ending yet; anybody's first pairs are handed on."""
    with open_house(
        database, clock, tmp_path, styles=load_styles(), shared_pairs=3, max_new_tokens=4
    ) as house:
        yield house


def asked(database: Database) -> list[str]:
    """The bank prompts that are asked, in their order."""
    with database.read() as session:
        statement = select(Prompt.text).where(Prompt.owner_id.is_(None), Prompt.active)
        return list(session.scalars(statement.order_by(Prompt.id)))


def stored(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Prompt)) or 0


def test_the_bank_is_imported_once(database: Database, clock: Clock) -> None:
    assert prompts.import_bank(database, clock()) == len(shipped()) >= 300
    assert prompts.import_bank(database, clock()) == 0
    assert asked(database) == [entry["text"] for entry in shipped()]


def test_an_ending_stands_behind_each_prompt(database: Database, clock: Clock) -> None:
    assert prompts.import_bank(database, clock(), USUAL_ENDING) == len(shipped())
    assert prompts.import_bank(database, clock(), USUAL_ENDING) == 0
    assert asked(database) == [f"{entry['text']} {USUAL_ENDING}" for entry in shipped()]


def test_another_ending_takes_the_place_of_the_former_one(database: Database, clock: Clock) -> None:
    prompts.import_bank(database, clock(), USUAL_ENDING)
    for ending in (BRIEFLY, "", USUAL_ENDING, BRIEFLY):
        assert prompts.import_bank(database, clock(), ending) == 0
        expected = [f"{entry['text']} {ending}".strip() for entry in shipped()]
        assert sorted(asked(database)) == sorted(expected)
    # An ending that comes back finds the prompts it had.
    assert stored(database) == 3 * len(shipped())


def test_what_was_asked_keeps_its_words_and_the_ending_is_trained_on(house: House) -> None:
    user = house.user("mia")
    before = judge(house, user)
    prompts.import_bank(house.database, house.clock(), BRIEFLY)
    assert asked(house.database)[0].endswith(f" {BRIEFLY}")
    shown = last(house.desk.stream(user))
    assert shown.prompt.endswith(f" {BRIEFLY}")
    choice = house.desk.choose(user, comparison_id(shown), "a")
    with house.database.read() as session:
        pair = round_input.load_pairs(session, "base", [choice])[choice]
        former = session.scalars(select(Prompt).where(Prompt.text == before.prompt)).one()
        assert session.get_one(Comparison, before.comparison_id).prompt_id == former.id
    assert pair.messages == ({"role": "user", "content": shown.prompt},)
    assert not former.active


def test_what_was_turned_off_stays_off(database: Database, clock: Clock) -> None:
    prompts.import_bank(database, clock())
    first = shipped()[0]["text"]
    with database.write() as session:
        session.scalars(select(Prompt).where(Prompt.text == first)).one().active = False
    for ending in (BRIEFLY, "", BRIEFLY):
        prompts.import_bank(database, clock(), ending)
        texts = asked(database)
        assert len(texts) == len(shipped()) - 1
        assert not any(text.startswith(first) for text in texts)


def test_what_was_refused_stays_refused(house: House) -> None:
    mia, ben = house.user("mia"), house.user("ben")
    refused = last(house.desk.stream(mia))
    house.desk.never_again(mia, comparison_id(refused))
    for ending in (BRIEFLY, "", BRIEFLY):
        prompts.import_bank(house.database, house.clock(), ending)
    with house.database.write() as session:
        statement = select(UnwantedPrompt.user_id, Prompt.text).join(
            Prompt, Prompt.id == UnwantedPrompt.prompt_id
        )
        assert sorted(tuple(row) for row in session.execute(statement)) == [
            (mia, refused.prompt),
            (mia, f"{refused.prompt} {BRIEFLY}"),
        ]
        # Were it the only prompt left, others would be asked it, and mia nothing.
        for prompt in session.scalars(select(Prompt)):
            prompt.active = prompt.text == f"{refused.prompt} {BRIEFLY}"
    assert last(house.desk.stream(ben)).prompt == f"{refused.prompt} {BRIEFLY}"
    assert not house.maker.hand_over(mia)
    with pytest.raises(Unavailable, match="no prompt in the bank"):
        last(house.desk.stream(mia))


def test_pairs_with_a_former_ending_are_not_handed_on(house: House) -> None:
    mia, ben = house.user("mia"), house.user("ben")
    judge(house, mia)
    assert house.maker.hand_over(house.user("kim"))
    prompts.import_bank(house.database, house.clock(), BRIEFLY)
    assert not house.maker.hand_over(ben)
    assert last(house.desk.stream(ben)).prompt.endswith(f" {BRIEFLY}")


def test_processes_that_start_at_once_agree(database: Database, clock: Clock) -> None:
    now = clock()
    with ThreadPoolExecutor(4) as pool:
        for ending in ("", BRIEFLY):
            added = pool.map(lambda e: prompts.import_bank(database, now, e), [ending] * 4)
            assert sorted(added) == [0, 0, 0, 0 if ending else len(shipped())]
            assert len(set(asked(database))) == len(asked(database)) == len(shipped())
