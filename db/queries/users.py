"""SQL for people: users, web sessions, invites, counted failures.

Every function takes a session and never commits; the use case does. Knows no rule of who may do
what, and no token or password in the clear: only their hashes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from db.models import Comparison, Invite, LoginFailure, Response, User, WebSession

# Begins the name of a row whose user was erased; no name that people may take has a colon in it.
ERASED = "erased: "


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How often one key failed since a moment, and when last."""

    count: int
    last_at: datetime


def user_by_id(session: Session, user_id: int, *, lock: bool = False) -> User | None:
    """The user; `lock` keeps other writers off the row until the transaction ends."""
    query = select(User).where(User.id == user_id)
    return session.scalar(query.with_for_update() if lock else query)


def forget_profile(session: Session, user_id: int) -> None:
    """Take what the user once wrote out of the record of every response made with it."""
    own = select(Comparison.id).where(Comparison.user_id == user_id)
    session.execute(
        update(Response)
        .where(Response.comparison_id.in_(own), Response.profile != "")
        .values(profile=""),
        execution_options={"synchronize_session": False},
    )


def user_by_key(session: Session, username_key: str, *, lock: bool = False) -> User | None:
    """The user of a casefolded name."""
    query = select(User).where(User.username_key == username_key)
    return session.scalar(query.with_for_update() if lock else query)


def user_by_subject(session: Session, subject: str) -> User | None:
    """The user of a Hugging Face account (OpenID `sub`)."""
    return session.scalar(select(User).where(User.hf_subject == subject).with_for_update())


def user_by_token(session: Session, token_hash: str, now: datetime) -> User | None:
    """The user of a session that is neither expired nor revoked, unless disabled."""
    return session.scalar(
        select(User)
        .join(WebSession, WebSession.user_id == User.id)
        .where(
            WebSession.token_hash == token_hash,
            WebSession.revoked_at.is_(None),
            WebSession.expires_at > now,
            User.disabled_at.is_(None),
        )
    )


def touch_user(session: Session, user_id: int, now: datetime) -> None:
    """The user was here."""
    session.execute(update(User).where(User.id == user_id).values(seen_at=now))


def erased() -> ColumnElement[bool]:
    """True for a row that somebody who was erased has left: it is nobody's account any more."""
    return User.username_key.startswith(ERASED)


def list_users(session: Session, search: str, limit: int) -> Sequence[User]:
    """Users whose name contains `search`; full accounts first, then by name."""
    query = select(User).where(~erased())
    query = query.order_by(User.is_guest, User.is_simulated, User.username_key)
    if search:
        query = query.where(User.username_key.contains(search, autoescape=True))
    return session.scalars(query.limit(limit)).all()


def lock_admins(session: Session) -> Sequence[User]:
    """The enabled admins, locked, so that two admins cannot demote each other at once."""
    return session.scalars(
        select(User)
        .where(User.role == "admin", User.disabled_at.is_(None))
        .order_by(User.id)
        .with_for_update()
    ).all()


def has_admin(session: Session) -> bool:
    """Whether an enabled admin exists."""
    query = select(User.id).where(User.role == "admin", User.disabled_at.is_(None)).limit(1)
    return session.scalar(query) is not None


def owner_of_session(session: Session, token_hash: str) -> int | None:
    """Whose session this is or once was, expired and revoked ones included."""
    return session.scalar(select(WebSession.user_id).where(WebSession.token_hash == token_hash))


def revoke_session(session: Session, token_hash: str, now: datetime) -> None:
    """End one session; an ended one stays as it is."""
    session.execute(
        update(WebSession)
        .where(WebSession.token_hash == token_hash, WebSession.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def revoke_sessions(session: Session, user_id: int, now: datetime) -> None:
    """End every session of a user."""
    session.execute(
        update(WebSession)
        .where(WebSession.user_id == user_id, WebSession.revoked_at.is_(None))
        .values(revoked_at=now)
    )


def delete_sessions(session: Session, expired_before: datetime) -> None:
    """Forget sessions that expired before a moment."""
    session.execute(delete(WebSession).where(WebSession.expires_at < expired_before))


def invite_by_hash(session: Session, token_hash: str) -> Invite | None:
    """The invite of a token, open or not."""
    return session.scalar(select(Invite).where(Invite.token_hash == token_hash))


def take_invite(session: Session, invite_id: int, user_id: int, now: datetime) -> bool:
    """Mark an open invite used; False when somebody was quicker or it has expired."""
    taken = session.scalar(
        update(Invite)
        .where(Invite.id == invite_id, Invite.used_at.is_(None), Invite.expires_at > now)
        .values(used_at=now, used_by=user_id)
        .returning(Invite.id)
    )
    return taken is not None


def open_invites(session: Session, now: datetime) -> Sequence[tuple[Invite, str | None]]:
    """Invites that still work, newest first, each with its creator's name."""
    rows = session.execute(
        select(Invite, User.username)
        .outerjoin(User, User.id == Invite.created_by)
        .where(Invite.used_at.is_(None), Invite.expires_at > now)
        .order_by(Invite.id.desc())
    )
    return [(invite, name) for invite, name in rows]


def expire_invite(session: Session, invite_id: int, now: datetime) -> None:
    """Close one unused invite."""
    session.execute(
        update(Invite)
        .where(Invite.id == invite_id, Invite.used_at.is_(None), Invite.expires_at > now)
        .values(expires_at=now)
    )


def expire_own_invites(session: Session, now: datetime) -> None:
    """Close every unused invite that the program itself has made."""
    session.execute(
        update(Invite)
        .where(
            Invite.created_by.is_(None),
            Invite.used_at.is_(None),
            Invite.expires_at > now,
        )
        .values(expires_at=now)
    )


def failures(session: Session, keys: Collection[str], since: datetime) -> dict[str, FailureCount]:
    """Counted failures per key after `since`; keys without one are missing."""
    rows = session.execute(
        select(LoginFailure.key, func.count(), func.max(LoginFailure.at))
        .where(LoginFailure.key.in_(keys), LoginFailure.at > since)
        .group_by(LoginFailure.key)
    )
    return {key: FailureCount(count, last_at) for key, count, last_at in rows}


def add_failures(session: Session, keys: Collection[str], now: datetime) -> tuple[int, ...]:
    """Count one failure for each key; the new rows' ids."""
    rows = [LoginFailure(key=key, at=now) for key in keys]
    session.add_all(rows)
    session.flush()
    return tuple(row.id for row in rows)


def forget_failures(session: Session, keys: Collection[str], ids: Collection[int]) -> None:
    """Forget every failure of these keys and these single ones."""
    session.execute(
        delete(LoginFailure).where(LoginFailure.key.in_(keys) | LoginFailure.id.in_(ids))
    )


def delete_failures(session: Session, before: datetime) -> None:
    """Forget failures older than a moment."""
    session.execute(delete(LoginFailure).where(LoginFailure.at < before))
