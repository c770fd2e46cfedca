"""What admins do: invites, roles, switching accounts off and on; and the first admin's link.

Every call names the acting user and checks, in its own transaction, that this is an admin now.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from backend import account_rows
from backend.errors import Conflict, InvalidInput, NotAllowed, NotFound
from backend.identity import token_hash
from backend.typed_text import storable
from backend.wording import msg
from db.models import ROLES, Invite, User
from db.queries import users as queries
from db.session import Database

INVITE_DAYS = 7
MOST_USERS_SHOWN = 200
_ROLES = msg("The roles are {roles}.")
_LAST_ADMIN = msg("There must be another admin first.")


@dataclass(frozen=True, slots=True)
class Person:
    """One line of the admins' list of users."""

    id: int
    username: str
    role: str
    is_guest: bool
    is_simulated: bool
    is_disabled: bool
    created_at: datetime
    seen_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenInvite:
    """An invite that still works; its token is not known any more.

    Attributes:
        made_by: the admin's name, None for the program itself.
    """

    id: int
    role: str
    made_by: str | None
    expires_at: datetime


class Administration:
    """The admins' use cases.

    Args:
        clock: the present moment, aware.
    """

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def first_admin_invite(self) -> str | None:
        """A fresh link token for the first admin, or None when there is an admin.

        Earlier ones of this kind stop working.
        """
        now = self._clock()
        with self._database.write() as session:
            if queries.has_admin(session):
                return None
            queries.expire_own_invites(session, now)
            return _add_invite(session, "admin", None, now)

    def invite(self, by_id: int, role: str) -> str:
        """A one-time token that gives its user the role, for `INVITE_DAYS` days.

        Raises:
            NotAllowed: not an admin. InvalidInput: no such role.
        """
        now = self._clock()
        with self._database.write() as session:
            _require_admin(session, by_id)
            return _add_invite(session, _known_role(role), by_id, now)

    def invited_role(self, token: str) -> str:
        """The role that an open invite gives; looking does not use it up.

        Raises:
            NotFound: unknown, used or expired.
        """
        with self._database.read() as session:
            return account_rows.open_invite(session, token, self._clock()).role

    def open_invites(self, by_id: int) -> tuple[OpenInvite, ...]:
        """The invites that still work, newest first.

        Raises:
            NotAllowed: not an admin.
        """
        with self._database.read() as session:
            _require_admin(session, by_id)
            return tuple(
                OpenInvite(invite.id, invite.role, name, invite.expires_at)
                for invite, name in queries.open_invites(session, self._clock())
            )

    def withdraw_invite(self, by_id: int, invite_id: int) -> None:
        """The invite stops working.

        Raises:
            NotAllowed: not an admin.
        """
        with self._database.write() as session:
            _require_admin(session, by_id)
            queries.expire_invite(session, invite_id, self._clock())

    def users(
        self, by_id: int, search: str = "", limit: int = MOST_USERS_SHOWN
    ) -> tuple[Person, ...]:
        """Users whose name contains `search`, full accounts first.

        Raises:
            NotAllowed: not an admin.
        """
        key = storable(search).casefold()
        with self._database.read() as session:
            _require_admin(session, by_id)
            return tuple(_person(user) for user in queries.list_users(session, key, limit))

    def set_role(self, by_id: int, user_id: int, role: str) -> None:
        """Give a user a role.

        Raises:
            NotAllowed: not an admin. InvalidInput: no such role. NotFound: no such user.
            Conflict: a guest or simulated user, or the last admin would be gone.
        """
        with self._database.write() as session:
            admins = queries.lock_admins(session)
            _require_admin(session, by_id)
            user = _found(session, user_id)
            if (user.is_guest or user.is_simulated) and role != "annotator":
                raise Conflict(msg("Only people with a full account can have this role."))
            if user in admins and role != "admin" and len(admins) == 1:
                raise Conflict(_LAST_ADMIN)
            user.role = _known_role(role)

    def disable(self, by_id: int, user_id: int) -> None:
        """Switch an account off: every session ends and no way in works.

        Raises:
            NotAllowed: not an admin. NotFound: no such user. Conflict: the last admin.
        """
        now = self._clock()
        with self._database.write() as session:
            admins = queries.lock_admins(session)
            _require_admin(session, by_id)
            user = _found(session, user_id)
            if user in admins and len(admins) == 1:
                raise Conflict(_LAST_ADMIN)
            user.disabled_at = user.disabled_at or now
            queries.revoke_sessions(session, user.id, now)

    def enable(self, by_id: int, user_id: int) -> None:
        """Switch an account on again; its people sign in anew.

        Raises:
            NotAllowed: not an admin. NotFound: no such user.
        """
        with self._database.write() as session:
            _require_admin(session, by_id)
            _found(session, user_id).disabled_at = None


def _require_admin(session: Session, user_id: int) -> None:
    user = queries.user_by_id(session, user_id)
    if user is None or user.role != "admin" or user.disabled_at is not None:
        raise NotAllowed(msg("This is for admins."))


def _found(session: Session, user_id: int) -> User:
    user = queries.user_by_id(session, user_id, lock=True)
    if user is None or user.username_key.startswith(queries.ERASED):
        raise NotFound(msg("There is no such user."))
    return user


def _known_role(role: str) -> str:
    if role not in ROLES:
        raise InvalidInput(_ROLES, roles=", ".join(ROLES))
    return role


def _add_invite(session: Session, role: str, by_id: int | None, now: datetime) -> str:
    token = secrets.token_urlsafe(32)
    session.add(
        Invite(
            token_hash=token_hash(token),
            role=role,
            created_by=by_id,
            created_at=now,
            expires_at=now + timedelta(days=INVITE_DAYS),
        )
    )
    return token


def _person(user: User) -> Person:
    return Person(
        user.id,
        user.username,
        user.role,
        user.is_guest,
        user.is_simulated,
        user.disabled_at is not None,
        user.created_at,
        user.seen_at,
    )
