"""What users write about themselves: kept, erased, and read when a response is made for them.

Knows nothing of prompts' form: `trainer.prompting.personal_messages` puts a profile into one.
"""

from __future__ import annotations

import unicodedata

from backend.errors import InvalidInput, NotAllowed, NotFound
from backend.typed_text import storable
from backend.wording import msg
from db.queries import users as queries
from db.session import Database

MOST_CHARACTERS = 500

_TOO_LONG = msg("That is {length} characters long; {most} are possible.")


class Profiles:
    """Profiles of people; simulated users have none."""

    def __init__(self, database: Database, *, used: bool) -> None:
        """Begin.

        Args:
            used: whether profiles go into prompts; writing and erasing work either way.
        """
        self._database = database
        self.used = used

    def read(self, user_id: int) -> str:
        """What the user wrote; empty without a profile."""
        with self._database.read() as session:
            user = queries.user_by_id(session, user_id)
        return user.profile if user is not None else ""

    def in_prompt(self, user_id: int) -> str:
        """What goes into this user's personal prompts now; empty where profiles are not used."""
        return self.read(user_id) if self.used else ""

    def write(self, user_id: int, text: str) -> None:
        """Keep `text` as the user's profile. An empty one erases it, wherever it was recorded.

        Raises:
            InvalidInput: too long. NotAllowed: the user is simulated. NotFound: no such user.
        """
        cleaned = _clean(text)
        if len(cleaned) > MOST_CHARACTERS:
            raise InvalidInput(_TOO_LONG, length=len(cleaned), most=MOST_CHARACTERS)
        with self._database.write() as session:
            user = queries.user_by_id(session, user_id, lock=True)
            if user is None:
                raise NotFound(msg("There is no such user."))
            if user.is_simulated:
                raise NotAllowed(msg("Simulated users have no profile."))
            user.profile = cleaned
            if not cleaned:
                queries.forget_profile(session, user_id)


def _clean(text: str) -> str:
    """Lines as they were typed, without control characters (Postgres refuses some)."""
    lines = storable(text.replace("\r\n", "\n").replace("\r", "\n"))
    return "".join(c for c in lines if c == "\n" or unicodedata.category(c) != "Cc")
