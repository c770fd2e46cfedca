"""Expected errors. Each carries the sentence a person reads; `ui/session.py` shows it.

AttuneError
├── ConfigurationError     the program cannot start: one line, exit status 2
├── NotSignedIn            no or expired session
├── NotAllowed             the role or the ownership is missing
├── NotFound               no such thing, or not yours (never says which)
├── InvalidInput           what was sent cannot be used
├── Conflict               somebody, perhaps you in another tab, was quicker
├── TooManyRequests        throttled; carries retry_after_s
└── Unavailable            not now: the model is loading, the database is away
"""

from __future__ import annotations

from sqlalchemy.exc import InterfaceError, OperationalError


class AttuneError(Exception):
    """An expected error; `str(error)` is fit for people."""


class ConfigurationError(AttuneError):
    """The program cannot start as configured."""


class NotSignedIn(AttuneError):
    """No session, or it has expired."""


class NotAllowed(AttuneError):
    """The role does not include this."""


class NotFound(AttuneError):
    """There is no such thing, or it is someone else's."""


class InvalidInput(AttuneError):
    """The input cannot be used as sent."""


class Conflict(AttuneError):
    """The state has moved on since the page was drawn."""


class TooManyRequests(AttuneError):
    """Throttled."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unavailable(AttuneError):
    """Something this needs is not there right now; trying again later may work."""


def friendly(error: Exception) -> str | None:
    """The sentence a person reads for an expected error; None when it is not one."""
    if isinstance(error, AttuneError):
        return str(error)
    if isinstance(error, (OperationalError, InterfaceError)):
        return "The database does not answer right now. Nothing was lost; please try again soon."
    return None
