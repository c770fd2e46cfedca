"""Who somebody is, as the rest of the program sees it: plain values, no rows, no secrets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from backend.errors import NotAllowed
from backend.wording import msg
from db.models import ROLES, User

__all__ = [
    "ROLES",
    "CurrentUser",
    "SignedIn",
    "describe",
    "includes",
    "require_role",
    "token_hash",
]

_FOR = {
    "annotator": msg("This is for annotators."),
    "researcher": msg("This is for researchers."),
    "admin": msg("This is for admins."),
}


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """Who is asking.

    Attributes:
        introduced: went through the introduction, or past it.
        consented_to: SHA-256 of the study's text that the user agreed to last.
        language: chosen by the user; empty where the browser decides.
    """

    id: int
    username: str
    role: str
    is_guest: bool
    has_password: bool
    introduced: bool = False
    consented_to: str | None = None
    language: str = ""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user and the fresh session token of their browser.

    Attributes:
        token: opens the session; only the browser keeps it.
        browser: what the browser may show later to be recognised as one that was signed in
            (`Accounts.sign_in`); it opens nothing.
        lasts_s: seconds until the session expires.
    """

    user: CurrentUser
    token: str
    browser: str
    lasts_s: int


def includes(role: str, other: str) -> bool:
    """Whether `role` is `other` or more: annotator < researcher < admin."""
    return ROLES.index(role) >= ROLES.index(other)


def require_role(user: CurrentUser, role: str) -> None:
    """Let pass who has the role or one that includes it.

    Raises:
        NotAllowed: the user's role does not include it.
    """
    if not includes(user.role, role):
        raise NotAllowed(_FOR[role])


def describe(user: User) -> CurrentUser:
    """The row without its secrets."""
    return CurrentUser(
        user.id,
        user.username,
        user.role,
        user.is_guest,
        user.password_hash is not None,
        user.introduced_at is not None,
        user.consented_to,
        user.language,
    )


def token_hash(token: str) -> str:
    """What the database keeps of a session's or an invite's token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
