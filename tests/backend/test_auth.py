"""Accounts, sessions, invites, roles and the throttle, on SQLite and on Postgres."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import func, select

from backend import throttle
from backend.administration import INVITE_DAYS, Administration
from backend.auth import Accounts, CurrentUser, SignUp, require_role
from backend.errors import (
    AttuneError,
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotSignedIn,
    TooManyRequests,
)
from backend.passwords import Passwords, name_key
from backend.throttle import Limit, network_of
from db.models import LoginFailure, User, WebSession
from db.session import Database
from tests.conftest import Clock

GOOD = "a quiet sentence"
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


def cheap() -> Passwords:
    return Passwords(memory_kib=8, passes=1)


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


def with_policy(database: Database, clock: Clock, signup: SignUp) -> Accounts:
    return Accounts(database, passwords=cheap(), clock=clock, signup=signup)


class Meeting(Passwords):
    """Nobody's hash is done before two have begun: both are past every early check then."""

    def __init__(self) -> None:
        super().__init__(memory_kib=8, passes=1)
        self._both = threading.Barrier(2, timeout=20)

    def hash(self, password: str) -> str:
        self._both.wait()
        return super().hash(password)


def side_by_side(*calls: Callable[[], object]) -> list[object]:
    """What each call returned or raised, all of them begun at once."""

    def outcome(call: Callable[[], object]) -> object:
        try:
            return call()
        except AttuneError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


def wrong_passwords(accounts: Accounts, times: int, name: str, **where: str) -> list[AttuneError]:
    errors: list[AttuneError] = []
    for _ in range(times):
        with pytest.raises((InvalidInput, TooManyRequests)) as caught:
            accounts.sign_in(name, "not the password", **where)  # type: ignore[arg-type]
        errors.append(caught.value)
    return errors


# Signing up and in


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
    ["", "ab", "a" * 33, "two words", "mara\n", "mara\x00", "<b>mara</b>", "аdmin", "Guest-1234"],
)
def test_names_that_do_not_fit_are_refused(accounts: Accounts, name: str) -> None:
    with pytest.raises(InvalidInput):
        accounts.sign_up(name if name.strip() == name else name + "x", GOOD, address=HOME)


@pytest.mark.parametrize("password", ["", "too short", "x" * 201, "Mara-Kolman"])
def test_passwords_that_do_not_fit_are_refused(accounts: Accounts, password: str) -> None:
    with pytest.raises(InvalidInput, match="password"):
        accounts.sign_up("mara-kolman", password, address=HOME)


def test_the_same_password_composed_otherwise_is_the_same(accounts: Accounts) -> None:
    accounts.sign_up("mara", "caf\u00e9 caf\u00e9", address=HOME)
    assert accounts.sign_in("mara", "cafe\u0301 cafe\u0301", address=HOME).user.username == "mara"


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


# Sessions


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
    wrong_passwords(accounts, 1, "mara", address=HOME)

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


# Guests


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


# Invites and who may sign up


def test_the_first_admins_link_works_once(
    accounts: Accounts, administration: Administration, database: Database, clock: Clock
) -> None:
    stale, token = administration.first_admin_invite(), administration.first_admin_invite()
    assert stale is not None
    assert token is not None
    with pytest.raises(NotFound):
        administration.invited_role(stale)
    assert administration.invited_role(token) == "admin"
    closed = with_policy(database, clock, "closed")
    assert closed.sign_up("chief", GOOD, address=HOME, invite=token).user.role == "admin"
    with pytest.raises(NotFound):
        accounts.sign_up("second", GOOD, address=HOME, invite=token)
    assert administration.first_admin_invite() is None


def test_the_first_admins_link_dies_with_the_first_admin(
    accounts: Accounts, administration: Administration, admin: CurrentUser, database: Database
) -> None:
    other = accounts.sign_up("other", GOOD, address=HOME).user
    administration.set_role(admin.id, other.id, "admin")
    administration.disable(other.id, admin.id)
    administration.set_role(other.id, admin.id, "annotator")
    assert administration.first_admin_invite() is None


def test_an_invite_gives_its_role_once(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    token = administration.invite(admin.id, "researcher")
    assert accounts.sign_up("mara", GOOD, address=HOME, invite=token).user.role == "researcher"
    with pytest.raises(NotFound):
        accounts.sign_up("jonas", GOOD, address=HOME, invite=token)
    with pytest.raises(InvalidInput, match="do not go together"):
        accounts.sign_in("jonas", GOOD, address=HOME)  # nothing was made


def test_an_invite_expires_and_can_be_withdrawn(
    administration: Administration, admin: CurrentUser, clock: Clock
) -> None:
    tokens = [administration.invite(admin.id, role) for role in ("researcher", "annotator")]
    newest, oldest = administration.open_invites(admin.id)
    assert (newest.role, oldest.role) == ("annotator", "researcher")
    assert newest.made_by == "chief"
    administration.withdraw_invite(admin.id, newest.id)
    with pytest.raises(NotFound):
        administration.invited_role(tokens[1])
    assert administration.invited_role(tokens[0]) == "researcher"
    clock.forward(days=INVITE_DAYS)
    with pytest.raises(NotFound):
        administration.invited_role(tokens[0])
    assert administration.open_invites(admin.id) == ()


def test_one_invite_used_twice_at_once_works_once(
    database: Database, clock: Clock, administration: Administration, admin: CurrentUser
) -> None:
    token = administration.invite(admin.id, "researcher")
    accounts = Accounts(database, passwords=Meeting(), clock=clock)
    outcomes = side_by_side(
        lambda: accounts.sign_up("mara", GOOD, address=HOME, invite=token),
        lambda: accounts.sign_up("jonas", GOOD, address=HOME, invite=token),
    )
    assert sum(isinstance(outcome, Conflict | NotFound) for outcome in outcomes) == 1
    assert len(administration.users(admin.id)) == 2  # the admin and whoever was quicker


def test_a_full_account_accepts_an_invite(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    user = accounts.sign_up("mara", GOOD, address=HOME).user
    token = administration.invite(admin.id, "researcher")
    with pytest.raises(Conflict, match="already"):
        accounts.accept_invite(admin.id, token)
    assert accounts.accept_invite(user.id, token).role == "researcher"
    with pytest.raises(NotFound):
        accounts.accept_invite(user.id, token)


def test_a_guest_takes_an_invite_only_with_a_name(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    guest = accounts.guest(address=HOME).user
    token = administration.invite(admin.id, "researcher")
    with pytest.raises(Conflict, match="name"):
        accounts.accept_invite(guest.id, token)
    claimed = accounts.claim(guest.id, "mara", GOOD, invite=token).user
    assert (claimed.id, claimed.role) == (guest.id, "researcher")


@pytest.mark.parametrize(
    ("policy", "uninvited", "invited"),
    [("open", True, True), ("invite", False, True), ("closed", False, False)],
)
def test_who_may_make_an_account(
    database: Database,
    clock: Clock,
    administration: Administration,
    admin: CurrentUser,
    policy: SignUp,
    uninvited: bool,
    invited: bool,
) -> None:
    accounts = with_policy(database, clock, policy)
    token = administration.invite(admin.id, "annotator")
    calls = {
        "alone": lambda: accounts.sign_up("alone", GOOD, address=HOME),
        "invited": lambda: accounts.sign_up("invited", GOOD, address=HOME, invite=token),
        "guest": lambda: accounts.guest(address=HOME),
        "hub": lambda: accounts.sign_in_hugging_face("s1", "hubber", address=HOME),
    }
    worked = {
        name: not isinstance(side_by_side(call)[0], NotAllowed) for name, call in calls.items()
    }
    assert worked == {"alone": uninvited, "invited": invited, "guest": uninvited, "hub": uninvited}
    assert accounts.sign_in("chief", GOOD, address=HOME).user == admin


def test_guests_can_be_kept_out(database: Database, clock: Clock) -> None:
    accounts = Accounts(database, passwords=cheap(), clock=clock, guests=False)
    assert not accounts.guests_welcome
    with pytest.raises(NotAllowed):
        accounts.guest(address=HOME)


# Roles


@pytest.mark.parametrize("role", ["annotator", "researcher", "admin"])
def test_each_role_includes_the_one_before(role: str) -> None:
    user = CurrentUser(1, "mara", role, False, True)
    allowed = []
    for needed in ("annotator", "researcher", "admin"):
        try:
            require_role(user, needed)
        except NotAllowed:
            continue
        allowed.append(needed)
    assert allowed == ["annotator", "researcher", "admin"][: allowed.index(role) + 1]


def test_only_admins_administrate(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    user = accounts.sign_up("mara", GOOD, address=HOME).user
    administration.set_role(admin.id, user.id, "researcher")
    for forbidden in (
        lambda: administration.invite(user.id, "admin"),
        lambda: administration.open_invites(user.id),
        lambda: administration.withdraw_invite(user.id, 1),
        lambda: administration.users(user.id),
        lambda: administration.set_role(user.id, user.id, "admin"),
        lambda: administration.disable(user.id, admin.id),
        lambda: administration.enable(user.id, admin.id),
    ):
        with pytest.raises(NotAllowed):
            forbidden()
    assert accounts.user(user.id).role == "researcher"


def test_a_role_is_set_and_counts_at_once(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    signed_in = accounts.sign_up("mara", GOOD, address=HOME)
    administration.set_role(admin.id, signed_in.user.id, "researcher")
    user = accounts.user_for_token(signed_in.token)
    assert user is not None
    assert user.role == "researcher"
    with pytest.raises(InvalidInput):
        administration.set_role(admin.id, signed_in.user.id, "emperor")
    with pytest.raises(NotFound):
        administration.set_role(admin.id, 10_000, "researcher")


def test_the_last_admin_stays(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    for act in (
        lambda: administration.set_role(admin.id, admin.id, "researcher"),
        lambda: administration.disable(admin.id, admin.id),
    ):
        with pytest.raises(Conflict, match="another admin"):
            act()
    other = accounts.sign_up("mara", GOOD, address=HOME).user
    administration.set_role(admin.id, other.id, "admin")
    administration.set_role(admin.id, admin.id, "researcher")
    assert accounts.user(admin.id).role == "researcher"


def test_two_admins_cannot_demote_each_other_at_once(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    other = accounts.sign_up("mara", GOOD, address=HOME).user
    administration.set_role(admin.id, other.id, "admin")
    side_by_side(
        lambda: administration.set_role(admin.id, other.id, "annotator"),
        lambda: administration.set_role(other.id, admin.id, "annotator"),
    )
    roles = sorted(accounts.user(user_id).role for user_id in (admin.id, other.id))
    assert roles == ["admin", "annotator"]


def test_guests_stay_annotators(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    guest = accounts.guest(address=HOME).user
    with pytest.raises(Conflict, match="full account"):
        administration.set_role(admin.id, guest.id, "researcher")


def test_a_disabled_user_is_out_until_enabled(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    signed_in = accounts.sign_up("mara", GOOD, address=HOME)
    administration.disable(admin.id, signed_in.user.id)
    assert accounts.user_for_token(signed_in.token) is None
    with pytest.raises(NotSignedIn):
        accounts.user(signed_in.user.id)
    with pytest.raises(NotAllowed, match="disabled"):
        accounts.sign_in("mara", GOOD, address=HOME)
    with pytest.raises(InvalidInput):  # and says so to nobody else
        accounts.sign_in("mara", "not the password", address=HOME)
    administration.enable(admin.id, signed_in.user.id)
    assert accounts.user_for_token(signed_in.token) is None
    accounts.sign_in("mara", GOOD, address=HOME)


def test_users_are_listed_full_accounts_first_and_found_by_name(
    accounts: Accounts, administration: Administration, admin: CurrentUser
) -> None:
    guest = accounts.guest(address=HOME).user
    for name in ("zoe", "Mara_K", "maraXk"):
        accounts.sign_up(name, GOOD, address=HOME)
    listed = [person.username for person in administration.users(admin.id)]
    assert listed == ["chief", "Mara_K", "maraXk", "zoe", guest.username]
    assert [person.username for person in administration.users(admin.id, "A_K")] == ["Mara_K"]
    assert administration.users(admin.id, "%\x00") == ()
    assert len(administration.users(admin.id, limit=2)) == 2


# Hugging Face


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
    accounts = with_policy(database, clock, "invite")
    token = administration.invite(admin.id, "researcher")
    user = accounts.sign_in_hugging_face("sub-1", "mara", address=HOME, invite=token).user
    assert user.role == "researcher"
    accounts.change_password(user.id, "", GOOD)  # the first one needs no present one
    assert accounts.sign_in("mara", GOOD, address=HOME).user.has_password
    administration.disable(admin.id, user.id)
    with pytest.raises(NotAllowed, match="disabled"):
        accounts.sign_in_hugging_face("sub-1", "mara", address=HOME)


# The throttle


def test_wrong_passwords_are_slowed_down_and_the_wait_grows(
    accounts: Accounts, clock: Clock
) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    free = throttle.ACCOUNT_FROM_ADDRESS.free
    errors = wrong_passwords(accounts, free + 1, "mara", address=HOME)
    assert [type(error) for error in errors] == [InvalidInput] * free + [TooManyRequests]
    waits = []
    for _ in range(4):
        [error] = wrong_passwords(accounts, 1, "mara", address=HOME)
        assert isinstance(error, TooManyRequests)
        waits.append(error.retry_after_s)
        clock.forward(seconds=error.retry_after_s)
        [error] = wrong_passwords(accounts, 1, "mara", address=HOME)
        assert isinstance(error, InvalidInput)
    assert waits == sorted(set(waits))


def test_even_the_right_password_waits(accounts: Accounts, clock: Clock) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    wrong_passwords(accounts, throttle.ACCOUNT_FROM_ADDRESS.free, "mara", address=HOME)
    with pytest.raises(TooManyRequests, match="wait") as caught:
        accounts.sign_in("mara", GOOD, address=HOME)
    clock.forward(seconds=caught.value.retry_after_s)
    accounts.sign_in("mara", GOOD, address=HOME)


def test_signing_in_sets_the_count_back(accounts: Accounts) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    for _ in range(3):
        wrong_passwords(accounts, throttle.ACCOUNT_FROM_ADDRESS.free - 1, "mara", address=HOME)
        accounts.sign_in("mara", GOOD, address=HOME)


def test_unknown_names_are_counted_like_known_ones(accounts: Accounts) -> None:
    errors = wrong_passwords(
        accounts, throttle.ACCOUNT_FROM_ADDRESS.free + 1, "nobody", address=HOME
    )
    assert isinstance(errors[-1], TooManyRequests)


def test_an_attacker_elsewhere_does_not_lock_the_owner_out(
    accounts: Accounts, clock: Clock
) -> None:
    known = accounts.sign_up("mara", GOOD, address=HOME)
    for host in range(1, 60):  # a botnet, one try each, hour after hour
        with pytest.raises((InvalidInput, TooManyRequests)):
            accounts.sign_in("mara", "not the password", address=f"203.0.113.{host}")
    with pytest.raises(TooManyRequests) as caught:
        accounts.sign_in("mara", GOOD, address=HOME)  # a browser never seen waits a little
    assert caught.value.retry_after_s <= throttle.ACCOUNT.longest_wait_s + 1
    accounts.sign_in("mara", GOOD, address=HOME, browser=known.browser)  # her own does not
    clock.forward(seconds=caught.value.retry_after_s)
    accounts.sign_in("mara", GOOD, address=HOME)


def test_a_known_browser_is_counted_too(accounts: Accounts) -> None:
    browser = accounts.sign_up("mara", GOOD, address=HOME).browser
    errors = wrong_passwords(
        accounts, throttle.KNOWN_BROWSER.free + 1, "mara", address=HOME, browser=browser
    )
    assert isinstance(errors[-1], TooManyRequests)


def test_a_browser_known_to_another_account_counts_as_unknown(accounts: Accounts) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    own = accounts.sign_up("eve", GOOD, address=HOME).browser
    errors = wrong_passwords(
        accounts,
        throttle.ACCOUNT_FROM_ADDRESS.free + 1,
        "mara",
        address=HOME,
        browser=own,
    )
    assert isinstance(errors[-1], TooManyRequests)


def test_one_password_tried_on_many_accounts_is_slowed_down(accounts: Accounts) -> None:
    outcomes = [
        wrong_passwords(accounts, 1, f"user{n}", address=HOME)[0]
        for n in range(throttle.ADDRESS.free + 1)
    ]
    assert isinstance(outcomes[-2], InvalidInput)
    assert isinstance(outcomes[-1], TooManyRequests)
    accounts.sign_up("mara", GOOD, address=HOME)
    accounts.sign_in("mara", GOOD, address=ELSEWHERE)


def test_guesses_side_by_side_are_counted(accounts: Accounts) -> None:
    accounts.sign_up("mara", GOOD, address=HOME)
    outcomes = side_by_side(
        *[lambda: accounts.sign_in("mara", "not the password", address=HOME)] * 12
    )
    checked = sum(isinstance(outcome, InvalidInput) for outcome in outcomes)
    assert checked == throttle.ACCOUNT_FROM_ADDRESS.free


def test_accounts_made_from_one_address_are_limited(accounts: Accounts, clock: Clock) -> None:
    for _ in range(throttle.NEW_ACCOUNTS.free):
        accounts.guest(address=HOME)
    for one_more in (
        lambda: accounts.guest(address=HOME),
        lambda: accounts.sign_up("mara", GOOD, address=HOME),
        lambda: accounts.sign_in_hugging_face("sub", "mara", address=HOME),
    ):
        with pytest.raises(TooManyRequests):
            one_more()
    accounts.guest(address=ELSEWHERE)
    clock.forward(hours=1)
    accounts.guest(address=HOME)


@given(failures=st.integers(0, 10_000), since=st.floats(0, 1e6))
def test_waits_are_bounded_and_run_out(failures: int, since: float) -> None:
    limit = Limit(free=5, window_s=900, first_wait_s=4, longest_wait_s=300)
    wait = limit.wait_s(failures, since)
    assert 0 <= wait <= 300
    assert limit.wait_s(failures, since + wait) == pytest.approx(0, abs=1e-6)
    assert (wait == 0) or failures >= 5


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("testclient", "testclient"),
    ],
)
def test_an_address_counts_by_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
