"""Erasing oneself: the rows at once, the vector from what is served at once, from older files soon.

What stays is said by the page that offers it: a number without a name, and what the part that all
users share has learnt from everybody together. Knows no page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from backend.errors import Conflict, InvalidInput, NotFound
from backend.vector_files import VectorFiles
from backend.wording import msg
from db.queries import erasure as queries
from db.queries import rounds as round_queries
from db.queries import users as user_queries
from db.session import Database

_log = logging.getLogger(__name__)
_GONE = msg("There is no such account.")
_OTHER_NAME = msg("That is not the name of this account. Nothing was erased.")
_LAST_ADMIN = msg("You are the only admin. Make another user an admin first.")


class Erasure:
    """Takes one person out, and looks after what comes late."""

    def __init__(
        self,
        database: Database,
        vectors: VectorFiles | None,
        *,
        follow: Callable[[], None],
        clock: Callable[[], datetime],
    ) -> None:
        """Begin.

        Args:
            vectors: None with an engine that keeps none.
            follow: has the engine serve what the database names.
        """
        self._database = database
        self._vectors = vectors
        self._follow = follow
        self._clock = clock

    def erase(self, user_id: int, typed_name: str) -> None:
        """Erase everything of this user: rows in one transaction, then the served vector.

        Args:
            typed_name: the user's own name, typed to confirm.

        Raises:
            NotFound: no such user. InvalidInput: another name was typed.
            Conflict: the last admin.
        """
        with self._database.write() as session:
            # A round stores what it brings under this lock: it ends before, or sees who is gone.
            round_queries.lock_lease(session)
            admins = user_queries.lock_admins(session)
            user = user_queries.user_by_id(session, user_id, lock=True)
            if user is None or user.is_simulated or user.disabled_at is not None:
                raise NotFound(_GONE)
            if typed_name.strip().casefold() != user.username_key:
                raise InvalidInput(_OTHER_NAME)
            if [admin.id for admin in admins] == [user_id]:
                raise Conflict(_LAST_ADMIN)
            queries.make_nameless(user, self._clock())
            queries.erase_rows(session, user_id)
            queries.erase_samples(session, user_id)
        self._unserve()

    def sweep(self) -> None:
        """What could not be done at once: late rows, vectors in older versions. For the scheduler.

        Raises:
            OSError: a directory could not be written; the next call goes on.
        """
        with self._database.read() as session:
            late = queries.with_late_rows(session)
        for user_id in late:
            with self._database.write() as session:
                queries.erase_rows(session, user_id)
                queries.erase_samples(session, user_id)
        if self._vectors is not None:
            self._vectors.forget()
            self._follow()

    def _unserve(self) -> None:
        if self._vectors is None:
            return
        try:
            self._vectors.forget_live()
            self._follow()
        except OSError as error:
            # The person is gone and nobody can ask under their number; `sweep` tries again.
            _log.error("an erased user's vector is still in the live version: %s", error)
