"""Ways in, ways out and sessions, on SQLite and on Postgres."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import func, select

from backend import throttle
from backend.administration import Administration
from backend.auth import Accounts, CurrentUser
from backend.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    TooManyRequests,
)
from backend.passwords import Passwords, name_key
from db.models import LoginFailure, User, WebSession
from db.session import Database
from tests.backend.people import ELSEWHERE, GOOD, HOME, Meeting, cheap, side_by_side
from tests.conftest import Clock


def test_who_signs_up_can_sign_in_and_is_known_by_the_token(accounts: Accounts) -> None:
    made = accounts.sign_up("Mara.K", GOOD, address=HOME)
    assert made.user == CurrentUser(made.user.id, "Mara.K", "annotator", False, True)
    again = accounts.sign_in(" mara.k ", GOOD, address=HOME)
    assert again.user == made.user
    assert again.token != made.token
    for token in (made.token, again.token):
        assert accounts.user_for_token(token) == made.user
    assert accounts.user(made.user.id) == made.user


def test_names_are_unique_whatever_their_case(accounts: Accounts) -> None:
    accounts.sign_up("Mara", GOOD, address=HOME)
    with pytest.raises(Conflict, match="taken"):
        accounts.sign_up("mARA", GOOD, address=HOME)


@pytest.mark.parametrize(
    "name",
    ["", "ab", "a" * 33, "two words", "ma\nra", "mara\x00", "<b>mara</b>", "аdmin", "Guest-1234"],
)
def test_names_that_do_not_fit_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidInput):
        accounts.sign_up(name, GOOD, address=HOME)


@pytest.mark.parametrize("password", ["", "too short", "x" * 201, "Mara-Kolman"])
def test_passwords_that_do_not_fit_are_refused(accounts: Accounts, password: str) -> None:
    with pytest.raises(InvalidInput, match="password"):
        accounts.sign_up("mara-kolman", password, address=HOME)


def test_the_same_password_composed_otherwise_is_the_same(accounts: Accounts) -> None:
    accounts.sign_up("mara", "caf\u00e9 on the hill", address=HOME)
    assert accounts.sign_in("mara", "cafe\u0301 on the hill", address=HOME).user.username == "mara"


@pytest.mark.parametrize("name", ["mara", "nobody", "ma\x00ra", "x" * 5000, ""])
def test_a_wrong_sign_in_never_says_what_was_wrong(accounts: Accounts, name: str) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    with pytest.raises(InvalidInput, match=r"^Name and password do not go together\.$"):
        accounts.sign_in(name, "not the password", address=HOME)


def test_an_unknown_name_costs_a_verification_too(database: Database, clock: Clock) -> None:
    class Counting(Passwords):
        checked: list[str | None]

        def matches(self, stored: str | None, password: str) -> bool:
            self.checked.append(stored)
            return super().matches(stored, password)

    passwords = Counting(memory_kib=8, passes=1)
    passwords.checked = []
    accounts = Accounts(database, passwords=passwords, clock=clock)
    with pytest.raises(InvalidInput):
        accounts.sign_in("nobody", GOOD, address=HOME)
    assert passwords.checked == [None]
    assert not passwords.matches(None, "nobody has this password")


def test_the_database_holds_neither_password_nor_token(
    accounts: Accounts, database: Database
) -> None:
    token = accounts.sign_up("mara", GOOD, address=HOME).token
    with database.read() as session:
        user = session.scalars(select(User)).one()
        row = session.scalars(select(WebSession)).one()
    assert user.password_hash is not None
    assert user.password_hash.startswith("$argon2id$")
    assert GOOD not in user.password_hash
    assert token not in row.token_hash
    assert len(token) >= 43  # 256 bits


def test_a_password_is_hashed_anew_when_the_parameters_have_changed(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    def stored() -> str | None:
        with database.read() as session:
            return session.scalars(select(User.password_hash)).one()

    accounts.sign_up("mara", GOOD, address=HOME)
    before = stored()
    accounts.sign_in("mara", GOOD, address=HOME)
    assert stored() == before
    stronger = Accounts(database, passwords=Passwords(memory_kib=16, passes=2), clock=clock)
    stronger.sign_in("mara", GOOD, address=HOME)
    assert "m=16,t=2" in str(stored())
    stronger.sign_in("mara", GOOD, address=HOME)


def test_two_sign_ups_of_one_name_at_once_make_one_account(
    database: Database, clock: Clock
) -> None:
    accounts = Accounts(database, passwords=Meeting(), clock=clock)
    outcomes = side_by_side(
        lambda: accounts.sign_up("mara", GOOD, address=HOME),
        lambda: accounts.sign_up("MARA", GOOD, address=HOME),
    )
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(User)) == 1


def test_a_guest_gets_an_account_of_its_own(accounts: Accounts) -> None:
    first, second = accounts.guest(address=HOME), accounts.guest(address=HOME)
    assert first.user.id != second.user.id
    assert first.user.is_guest
    assert not first.user.has_password
    assert first.user.username.startswith("guest-")
    assert accounts.user_for_token(first.token) == first.user
    with pytest.raises(InvalidInput):
        accounts.sign_in(first.user.username, "", address=HOME)


def test_a_claimed_guest_keeps_the_id(accounts: Accounts) -> None:
    guest = accounts.guest(address=HOME)
    claimed = accounts.claim(guest.user.id, "mara", GOOD)
    assert claimed.user == CurrentUser(guest.user.id, "mara", "annotator", False, True)
    assert accounts.user_for_token(guest.token) is None
    assert accounts.user_for_token(claimed.token) == claimed.user
    assert accounts.sign_in("mara", GOOD, address=HOME).user.id == guest.user.id
    with pytest.raises(Conflict):
        accounts.claim(guest.user.id, "other", GOOD)


def test_a_guest_cannot_claim_a_name_that_is_taken(accounts: Accounts) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    guest = accounts.guest(address=HOME)
    with pytest.raises(Conflict, match="taken"):
        accounts.claim(guest.user.id, "Mara", GOOD)
    assert accounts.user_for_token(guest.token) == guest.user


def test_a_guest_claimed_twice_at_once_has_one_name(database: Database, clock: Clock) -> None:
    accounts = Accounts(database, passwords=Meeting(), clock=clock)
    guest = accounts.guest(address=HOME).user.id
    outcomes = side_by_side(
        lambda: accounts.claim(guest, "mara", GOOD), lambda: accounts.claim(guest, "amar", GOOD)
    )
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1


def test_a_hugging_face_user_comes_back_to_the_same_account(accounts: Accounts) -> None:
    first = accounts.sign_in_hugging_face("sub-1", "mara", address=HOME)
    renamed = accounts.sign_in_hugging_face("sub-1", "mara-new", address=ELSEWHERE)
    other = accounts.sign_in_hugging_face("sub-2", "mara", address=HOME)
    assert first.user == CurrentUser(first.user.id, "mara", "annotator", False, False)
    assert renamed.user == first.user
    assert other.user.id != first.user.id
    assert other.user.username == "mara-2"
    with pytest.raises(InvalidInput):
        accounts.sign_in("mara", "", address=HOME)


@pytest.mark.parametrize(
    "wanted", ["", "ab", "名前", "<script>alert(1)</script>", "guest-0001", "x" * 90]
)
def test_a_name_from_elsewhere_is_made_to_fit(accounts: Accounts, wanted: str) -> None:
    names = [
        accounts.sign_in_hugging_face(f"sub-{n}", wanted, address=HOME).user.username
        for n in range(8)
    ]
    assert len(set(names)) == 8
    for name in names:
        assert name_key(name) is not None
        assert not name.startswith("guest-")


def test_a_guest_becomes_the_hugging_face_account(accounts: Accounts) -> None:
    guest = accounts.guest(address=HOME)
    arrived = accounts.sign_in_hugging_face("sub-1", "mara", address=HOME, guest_id=guest.user.id)
    assert arrived.user == CurrentUser(guest.user.id, "mara", "annotator", False, False)
    assert accounts.user_for_token(guest.token) is None
    later = accounts.guest(address=HOME)
    again = accounts.sign_in_hugging_face("sub-1", "mara", address=HOME, guest_id=later.user.id)
    assert again.user.id == guest.user.id


def test_a_hugging_face_user_can_be_invited_and_disabled(
    database: Database, clock: Clock, administration: Administration, admin: CurrentUser
) -> None:
    accounts = Accounts(database, passwords=cheap(), clock=clock, signup="invite")
    token = administration.invite(admin.id, "researcher")
    user = accounts.sign_in_hugging_face("sub-1", "mara", address=HOME, invite=token).user
    assert user.role == "researcher"
    accounts.change_password(user.id, "", GOOD)  # the first one needs no present one
    assert accounts.sign_in("mara", GOOD, address=HOME).user.has_password
    administration.disable(admin.id, user.id)
    with pytest.raises(NotAllowed, match="disabled"):
        accounts.sign_in_hugging_face("sub-1", "mara", address=HOME)


def test_a_session_expires(accounts: Accounts, clock: Clock) -> None:
    signed_in = accounts.sign_up("mara", GOOD, address=HOME)
    assert signed_in.lasts_s == 30 * 24 * 3600
    clock.forward(days=29, hours=23)
    assert accounts.user_for_token(signed_in.token) is not None
    clock.forward(hours=1)
    assert accounts.user_for_token(signed_in.token) is None


def test_signing_out_ends_this_session_only(accounts: Accounts) -> None:
    here = accounts.sign_up("mara", GOOD, address=HOME)
    there = accounts.sign_in("mara", GOOD, address=HOME)
    accounts.sign_out(here.token)
    assert accounts.user_for_token(here.token) is None
    assert accounts.user_for_token(there.token) is not None
    accounts.sign_out("never issued")


def test_a_changed_password_ends_every_other_session(accounts: Accounts) -> None:
    old = [accounts.sign_up("mara", GOOD, address=HOME)]
    old.append(accounts.sign_in("mara", GOOD, address=HOME))
    fresh = accounts.change_password(old[0].user.id, GOOD, "another sentence")
    assert [accounts.user_for_token(signed_in.token) for signed_in in old] == [None, None]
    assert accounts.user_for_token(fresh.token) == fresh.user
    with pytest.raises(InvalidInput):
        accounts.sign_in("mara", GOOD, address=HOME)
    accounts.sign_in("mara", "another sentence", address=HOME)


def test_a_password_is_not_changed_without_the_present_one(accounts: Accounts) -> None:
    signed_in = accounts.sign_up("mara", GOOD, address=HOME)
    for _ in range(throttle.PASSWORD_CHANGE.free):
        with pytest.raises(InvalidInput, match="present password"):
            accounts.change_password(signed_in.user.id, "a guess or so", "another sentence")
    with pytest.raises(TooManyRequests):
        accounts.change_password(signed_in.user.id, GOOD, "another sentence")
    assert accounts.user_for_token(signed_in.token) is not None


def test_a_new_password_that_does_not_fit_counts_as_no_try(accounts: Accounts) -> None:
    user = accounts.sign_up("mara", GOOD, address=HOME).user
    for _ in range(throttle.PASSWORD_CHANGE.free + 1):
        with pytest.raises(InvalidInput, match="at least"):
            accounts.change_password(user.id, GOOD, "short")
    accounts.change_password(user.id, GOOD, "another sentence")


def test_being_seen_is_noted_once_an_hour(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    token = accounts.sign_up("mara", GOOD, address=HOME).token
    seen = []
    for minutes in (30, 40):
        clock.forward(minutes=minutes)
        accounts.user_for_token(token)
        with database.read() as session:
            seen.append(session.scalars(select(User.seen_at)).one())
    assert seen == [clock.now - timedelta(minutes=70), clock.now]


def test_tidying_forgets_what_no_longer_matters(
    accounts: Accounts, database: Database, clock: Clock
) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    with pytest.raises(InvalidInput):
        accounts.sign_in("mara", "not the password", address=HOME)

    def kept() -> tuple[int, int]:
        with database.read() as session:
            return (
                len(session.scalars(select(LoginFailure)).all()),
                len(session.scalars(select(WebSession)).all()),
            )

    accounts.tidy()
    assert kept() == (4, 1)  # one account made; account, address and both tried wrongly
    clock.forward(days=31)
    accounts.tidy()
    assert kept() == (0, 1)
    clock.forward(days=180)
    accounts.tidy()
    assert kept() == (0, 0)
