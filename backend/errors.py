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

from backend.wording import Counted, Sentence, msg

_DATABASE_AWAY = msg(
    "The database does not answer right now. Nothing was lost; please try again soon."
)


class AttuneError(Exception):
    """An expected error; `str(error)` is fit for people who read English.

    Attributes:
        sentence: the same before it was put into words, for every other language.
    """

    def __init__(self, text: str | Counted = "", /, **values: object) -> None:
        self.sentence = Sentence(text, values)
        super().__init__(str(self.sentence))


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

    def __init__(self, text: str | Counted, /, *, retry_after_s: int, **values: object) -> None:
        super().__init__(text, **values)
        self.retry_after_s = retry_after_s


class Unavailable(AttuneError):
    """Something this needs is not there right now; trying again later may work."""


def friendly(error: Exception) -> Sentence | None:
    """The sentence a person reads for an expected error; None when it is not one."""
    if isinstance(error, AttuneError):
        return error.sentence
    # Imported here: engines raise these errors too, also where there is no database.
    from sqlalchemy import exc  # noqa: PLC0415

    if isinstance(error, (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)):
        return Sentence(_DATABASE_AWAY)
    return None
