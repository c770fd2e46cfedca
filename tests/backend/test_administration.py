"""Invites, who may sign up, roles and switched-off accounts, on SQLite and on Postgres."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from sqlalchemy.orm import Session

import backend.administration
from backend.administration import INVITE_DAYS, Administration
from backend.auth import Accounts, CurrentUser, SignUp, require_role
from backend.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotFound,
    NotSignedIn,
)
from db.models import User
from db.session import Database
from tests.backend.people import GOOD, HOME, Meeting, cheap, side_by_side
from tests.conftest import Clock


def test_the_first_admins_link_works_once(
    accounts: Accounts, administration: Administration, database: Database, clock: Clock
) -> None:
    stale, token = administration.first_admin_invite(), administration.first_admin_invite()
    assert stale is not None
    assert token is not None
    with pytest.raises(NotFound):
        administration.invited_role(stale)
    assert administration.invited_role(token) == "admin"
    closed = Accounts(database, passwords=cheap(), clock=clock, signup="closed")
    assert closed.sign_up("chief", GOOD, address=HOME, invite=token).user.role == "admin"
    with pytest.raises(NotFound):
        accounts.sign_up("second", GOOD, address=HOME, invite=token)
    assert administration.first_admin_invite() is None


def test_the_first_admins_link_dies_once_there_is_an_admin(
    accounts: Accounts, administration: Administration, database: Database
) -> None:
    token = administration.first_admin_invite()
    assert token is not None
    made = accounts.sign_up("mara", GOOD, address=HOME).user
    with database.write() as session:
        session.get_one(User, made.id).role = "admin"
    with pytest.raises(NotFound):
        accounts.sign_up("late", GOOD, address=HOME, invite=token)


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
def test_who_may_make_an_account(  # noqa: PLR0917 (pytest passes them by name)
    database: Database,
    clock: Clock,
    administration: Administration,
    admin: CurrentUser,
    policy: SignUp,
    uninvited: bool,
    invited: bool,
) -> None:
    accounts = Accounts(database, passwords=cheap(), clock=clock, signup=policy)
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
    accounts: Accounts,
    administration: Administration,
    admin: CurrentUser,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = accounts.sign_up("mara", GOOD, address=HOME).user
    administration.set_role(admin.id, other.id, "admin")
    both_checked = threading.Barrier(2)

    def check_and_linger(session: Session, user_id: int) -> None:
        require_admin(session, user_id)
        with suppress(threading.BrokenBarrierError):  # as it should be: the other one waits
            both_checked.wait(timeout=0.5)

    require_admin = backend.administration._require_admin
    monkeypatch.setattr(backend.administration, "_require_admin", check_and_linger)
    outcomes = side_by_side(
        lambda: administration.set_role(admin.id, other.id, "annotator"),
        lambda: administration.set_role(other.id, admin.id, "annotator"),
    )
    assert sum(isinstance(outcome, NotAllowed) for outcome in outcomes) == 1
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
