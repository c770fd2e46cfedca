"""Who still has to be introduced, and who still has to agree to the study's text.

The introduction is offered once to everybody with a name; guests came to try and see it when they
ask for it. A study's text is for everybody: without agreement no page of the study opens.
Knows no page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from backend.errors import ConfigurationError, Conflict
from backend.identity import CurrentUser
from backend.wording import msg
from db.queries import users as queries
from db.session import Database

_MOST_BYTES = 100_000
_UNREADABLE = "cannot read the consent text {path}: {why}"
_EMPTY = "the consent text {path} is empty"
_LONG = "the consent text {path} is longer than {most} bytes"
_NOT_UTF_8 = "it is not UTF-8"
_ANOTHER_TEXT = msg("This text was changed while you read it. Please read it as it is now.")


class Introductions:
    """Reads and notes what people went through."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        offered: bool = True,
        consent_text: str = "",
    ) -> None:
        """Begin.

        Args:
            offered: whether people see the introduction without asking for it.
            consent_text: what people agree to before they take part; empty where nothing is asked.
        """
        self._database = database
        self._clock = clock
        self._offered = offered
        self.consent_text = consent_text
        self.text_hash = hashlib.sha256(consent_text.encode()).hexdigest()

    def is_due(self, user: CurrentUser) -> bool:
        """Whether this user should see the introduction now."""
        return self._offered and not user.is_guest and not user.introduced

    def lacks_consent(self, user: CurrentUser) -> bool:
        """Whether this user has to agree first."""
        return bool(self.consent_text) and user.consented_to != self.text_hash

    def agreed_to_another(self, user: CurrentUser) -> bool:
        """Whether this user agreed to a text that has been changed since."""
        return self.lacks_consent(user) and user.consented_to is not None

    def agree(self, user_id: int, text_hash: str) -> None:
        """The user agrees to the study's text; of each text the first time counts.

        Args:
            text_hash: of the text that this user was shown.

        Raises:
            Conflict: the text is another one by now; nothing is noted.
        """
        if text_hash != self.text_hash:
            raise Conflict(_ANOTHER_TEXT)
        with self._database.write() as session:
            user = queries.user_by_id(session, user_id, lock=True)
            if user is not None and user.consented_to != text_hash:
                user.consented_at, user.consented_to = self._clock(), text_hash

    def finish(self, user_id: int) -> None:
        """The user went through the introduction, or past it; the first time counts."""
        with self._database.write() as session:
            user = queries.user_by_id(session, user_id, lock=True)
            if user is not None:
                user.introduced_at = user.introduced_at or self._clock()


def read_consent(path: Path | None) -> str:
    """The study's text, plain, paragraphs apart by empty lines; empty without a file.

    Raises:
        ConfigurationError: it cannot be read or is empty: nobody must slip in without it.
    """
    if path is None:
        return ""
    try:
        data = path.expanduser().read_bytes()
        text = data.decode("utf-8").strip()
    except OSError as error:
        raise ConfigurationError(_UNREADABLE.format(path=path, why=error.strerror)) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(_UNREADABLE.format(path=path, why=_NOT_UTF_8)) from error
    if not text:
        raise ConfigurationError(_EMPTY.format(path=path))
    if len(data) > _MOST_BYTES:
        raise ConfigurationError(_LONG.format(path=path, most=_MOST_BYTES))
    return text
