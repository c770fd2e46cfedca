"""Keeps the next comparisons ready, so that a page never waits.

A user is active for a while after each visit or choice. When a new version goes live, fresh pairs
are made first and the older unseen ones put away after: somebody always has a pair. A page that was
just asked for is answered and drawn first: cores are few, and often the browser's too.
Knows nothing of pages.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from backend.comparisons import bank_prompt
from backend.engines.base import Engine, Priority
from backend.errors import Unavailable
from backend.making import Maker
from db.queries import comparisons as queries
from db.session import Database

_log = logging.getLogger(__name__)
_ACTIVE_FOR = timedelta(minutes=10)
_GIVES_WAY_S = 0.3


class Prefetcher:
    """One thread that tops up every active user's comparisons to `target`.

    Args:
        gives_way_s: how long a page that was asked for has the machine to itself.
    """

    def __init__(
        self,
        database: Database,
        engine: Engine,
        maker: Maker,
        *,
        target: int,
        clock: Callable[[], datetime],
        rng: random.Random,
        gives_way_s: float = _GIVES_WAY_S,
    ) -> None:
        self._database = database
        self._engine = engine
        self._maker = maker
        self._target = target
        self._clock = clock
        self._rng = rng
        self._gives_way_s = gives_way_s
        self._active: dict[int, datetime] = {}
        self._wake = threading.Condition()
        self._to_look_at: set[int] = set()
        self._visited = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def wanted(self, user_id: int) -> None:
        """This user is here and will want another comparison; returns at once."""
        with self._wake:
            self._active[user_id] = self._clock()
            self._visited = True
            self._to_look_at.add(user_id)
            self._wake.notify()

    def look_again(self) -> None:
        """A version went live: nobody's pairs are by the live one any more."""
        with self._wake:
            self._to_look_at.update(self._active)
            self._wake.notify()

    def close(self) -> None:
        """Stop the thread; comparisons under way are the maker's."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._to_look_at or self._closed)
                if self._visited:  # once a turn, however many come: nobody's pairs wait for ever
                    self._visited = False
                    self._wake.wait_for(lambda: self._closed, self._gives_way_s)
                if self._closed:
                    return
                users = self._take()
            for user_id in users:
                try:
                    self._top_up(user_id)
                except (Unavailable, SQLAlchemyError, ValueError) as error:
                    # ValueError: a prompt, with what the user says of themselves, does not fit.
                    _log.warning("prefetch for user %s put off: %s", user_id, error)

    def _take(self) -> list[int]:
        """Active users to look at, whoever came last in front; the others are forgotten."""
        earliest = self._clock() - _ACTIVE_FOR
        self._active = {u: at for u, at in self._active.items() if at >= earliest}
        users = self._to_look_at & self._active.keys()
        self._to_look_at.clear()
        return sorted(users, key=self._active.__getitem__, reverse=True)

    def _top_up(self, user_id: int) -> None:
        live = self._engine.live_version
        if live is None:
            return
        with self._database.read() as session:
            waiting = queries.count_prefetched(session, user_id, live.version_id)
        if waiting:
            with self._database.write() as session:
                queries.retire_prefetched(session, user_id, live.version_id, self._clock())
        coming = sum(not making.shown for making in self._maker.under_way(user_id))
        for _ in range(self._target - waiting - coming):
            if self._maker.hand_over(user_id):
                continue
            prompt = bank_prompt(self._database, self._maker, user_id, self._rng)
            making = self._maker.start(user_id, prompt, Priority.PREFETCH, shown=False)
            making.stored.add_done_callback(partial(self._on_stored, user_id))

    def _on_stored(self, user_id: int, stored: Future[int]) -> None:
        # A failure is not followed up: the next visit or choice will ask again.
        if stored.exception() is None:
            with self._wake:
                self._to_look_at.add(user_id)
                self._wake.notify()
