"""Steps inside a use case's transaction: user rows with unique names, invites used once.

Functions take the caller's session and never commit. Knows no passwords and no sessions.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from backend.errors import Conflict, NotAllowed, NotFound
from backend.identity import includes, token_hash
from backend.passwords import GUEST_PREFIX
from backend.wording import msg
from db.models import Invite, User
from db.queries import users as queries

_LONGEST_STEM = 24  # leaves room for a number within a name's 32 characters
_TAKEN = msg("That name is taken. Please choose another.")


def add_user(
    session: Session,
    now: datetime,
    name: str,
    *,
    password_hash: str | None = None,
    hf_subject: str | None = None,
    is_guest: bool = False,
    persona: dict[str, Any] | None = None,
) -> User:
    """A new annotator; with a `persona`, a simulated one.

    Raises:
        Conflict: the name (or the Hugging Face account) was taken, perhaps this very moment.
    """
    user = User(
        username=name,
        username_key=name.casefold(),
        password_hash=password_hash,
        hf_subject=hf_subject,
        is_guest=is_guest,
        is_simulated=persona is not None,
        persona=persona,
        role="annotator",
        created_at=now,
    )
    session.add(user)
    _flush(session)
    return user


def rename(session: Session, user: User, name: str) -> None:
    """Give the user another name.

    Raises:
        Conflict: it is taken.
    """
    user.username, user.username_key = name, name.casefold()
    _flush(session)


def refuse_taken(session: Session, name: str) -> None:
    """An early look, before anything costly.

    Raises:
        Conflict: somebody has this name.
    """
    if queries.user_by_key(session, name.casefold()) is not None:
        raise Conflict(_TAKEN)


def guest_name(session: Session) -> str:
    """A free name like `guest-7f3a`."""
    return _free(session, (f"{GUEST_PREFIX}{secrets.token_hex(n)}" for n in (2, 2, 3, 8)))


def name_like(session: Session, wanted: str) -> str:
    """A free name as near as can be to one from elsewhere, whatever characters that has."""
    return _free(session, _names_like(wanted))


def admit(session: Session, signup: str, invite: str | None, now: datetime) -> None:
    """May a new account be made?

    The program's own link (the first admin's) works even where sign-up is closed.

    Raises:
        NotFound: the invite is not open. NotAllowed: sign-up is closed, or needs an invite.
    """
    found = open_invite(session, invite, now) if invite is not None else None
    if signup == "closed" and (found is None or found.created_by is not None):
        raise NotAllowed(msg("Sign-up is closed here."))
    if signup == "invite" and found is None:
        raise NotAllowed(msg("You need an invite to make an account here."))


def open_invite(session: Session, token: str, now: datetime) -> Invite:
    """The invite of a token, if it still works.

    The first admin's link stops working as soon as there is an admin, however old the log it
    stands in.

    Raises:
        NotFound: unknown, used or expired.
    """
    invite = queries.invite_by_hash(session, token_hash(token))
    if (
        invite is None
        or invite.used_at is not None
        or invite.expires_at <= now
        or (invite.created_by is None and queries.has_admin(session))
    ):
        raise NotFound(msg("This invite has been used or has expired."))
    return invite


def use_invite(session: Session, token: str, user: User, now: datetime) -> None:
    """Use up the invite: the user gets its role, or keeps a higher one.

    Raises:
        NotFound: it does not work any more. Conflict: somebody used it this very moment.
    """
    invite = open_invite(session, token, now)
    if not queries.take_invite(session, invite.id, user.id, now):
        raise Conflict(msg("This invite was used a moment ago."))
    if not includes(user.role, invite.role):
        user.role = invite.role


def _free(session: Session, candidates: Iterable[str]) -> str:
    for name in candidates:
        if queries.user_by_key(session, name.casefold()) is None:
            return name
    raise Conflict(msg("No free name was found. Please try again."))


def _names_like(wanted: str) -> Iterator[str]:
    stem = re.sub(r"[^A-Za-z0-9._-]", "", wanted)[:_LONGEST_STEM]
    if len(stem) < 3 or stem.casefold().startswith(GUEST_PREFIX):
        stem = f"hf-{stem}"[:_LONGEST_STEM] if stem else "hf-user"
    yield stem
    yield from (f"{stem}-{number}" for number in range(2, 6))
    yield f"{stem}-{secrets.token_hex(3)}"


def _flush(session: Session) -> None:
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(_TAKEN) from error
