"""Which errors become a sentence for people, and which do not."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import OperationalError

from backend.errors import Conflict, friendly
from db.session import Database


def test_expected_errors_say_what_they_say() -> None:
    assert str(friendly(Conflict("You were quicker."))) == "You were quicker."


def test_a_database_that_went_away_is_a_sentence_too() -> None:
    database = Database("postgresql://me:secret@127.0.0.1:1/attune")
    with pytest.raises(OperationalError) as caught:
        database.ping()
    database.close()
    message = str(friendly(caught.value))
    assert message is not None
    assert "Nothing was lost" in message
    assert "secret" not in message


def test_a_fault_of_ours_is_not_dressed_up() -> None:
    assert friendly(KeyError("x")) is None
