"""Who is introduced, who has agreed, and what the study's text must be; on both databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from backend.auth import Accounts
from backend.errors import ConfigurationError, Conflict
from backend.introductions import Introductions, read_consent
from db.models import User
from db.session import Database
from tests.backend.people import GOOD, HOME
from tests.conftest import Clock


def test_both_are_noted_once(database: Database, accounts: Accounts, clock: Clock) -> None:
    asks = Introductions(database, clock=clock, consent_text="Yes?")
    user = accounts.sign_up("mara", GOOD, address=HOME).user
    assert asks.is_due(user)
    assert asks.lacks_consent(user)
    first = clock()
    for _ in range(2):
        asks.agree(user.id, asks.text_hash)
        asks.finish(user.id)
        clock.forward(hours=1)
    now = accounts.user(user.id)
    assert not asks.is_due(now)
    assert not asks.lacks_consent(now)
    with database.read() as session:
        row = session.get_one(User, user.id)
    assert (row.introduced_at, row.consented_at) == (first, first)
    asks.agree(999, asks.text_hash)
    asks.finish(999)


def test_a_changed_text_is_agreed_to_anew(
    database: Database, accounts: Accounts, clock: Clock
) -> None:
    first = Introductions(database, clock=clock, consent_text="Yes?")
    user_id = accounts.sign_up("mara", GOOD, address=HOME).user.id
    first.agree(user_id, first.text_hash)
    clock.forward(days=1)
    second = Introductions(database, clock=clock, consent_text="Yes, and more?")
    user = accounts.user(user_id)
    assert (first.lacks_consent(user), first.agreed_to_another(user)) == (False, False)
    assert (second.lacks_consent(user), second.agreed_to_another(user)) == (True, True)
    with pytest.raises(Conflict, match="as it is now"):
        second.agree(user_id, first.text_hash)
    assert second.lacks_consent(accounts.user(user_id))
    second.agree(user_id, second.text_hash)
    assert not second.lacks_consent(accounts.user(user_id))
    with database.read() as session:
        assert session.get_one(User, user_id).consented_at == clock()


def test_guests_are_not_led_through_it_but_do_agree(
    database: Database, accounts: Accounts, clock: Clock
) -> None:
    asks = Introductions(database, clock=clock, consent_text="Yes?")
    guest = accounts.guest(address=HOME).user
    assert not asks.is_due(guest)
    assert asks.lacks_consent(guest)
    quiet = Introductions(database, clock=clock, offered=False)
    member = accounts.sign_up("mara", GOOD, address=HOME).user
    assert not quiet.is_due(member)
    assert not quiet.lacks_consent(member)


def test_a_study_without_its_text_does_not_start(tmp_path: Path) -> None:
    assert read_consent(None) == ""
    file = tmp_path / "consent.txt"
    file.write_text("  Ja, gern.\n\nDanke. \n", encoding="utf-8")
    assert read_consent(file) == "Ja, gern.\n\nDanke."
    for content in (b"", b" \n", b"\xff\xfe", b"x" * 100_001):
        file.write_bytes(content)
        with pytest.raises(ConfigurationError, match="consent text"):
            read_consent(file)
    for gone in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigurationError, match="cannot read"):
            read_consent(gone)
