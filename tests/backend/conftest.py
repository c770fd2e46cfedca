"""Accounts to test with, on whichever database the test runs."""

from __future__ import annotations

import pytest

from backend.administration import Administration
from backend.auth import Accounts, CurrentUser
from db.session import Database
from tests.backend.people import GOOD, HOME, cheap
from tests.conftest import Clock


@pytest.fixture
def accounts(database: Database, clock: Clock) -> Accounts:
    return Accounts(database, passwords=cheap(), clock=clock)


@pytest.fixture
def administration(database: Database, clock: Clock) -> Administration:
    return Administration(database, clock=clock)


@pytest.fixture
def admin(accounts: Accounts, administration: Administration) -> CurrentUser:
    token = administration.first_admin_invite()
    assert token is not None
    return accounts.sign_up("chief", GOOD, address=HOME, invite=token).user
