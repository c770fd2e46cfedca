"""One trainer at a time: a lease row with an epoch, over any number of processes and machines.

An epoch never comes back: a process that lost its lease finds a higher epoch in the transaction
that would promote, and stops. Knows nothing of rounds.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import psutil
from sqlalchemy.orm import Session

from db.models import TrainerLease
from db.queries import rounds as queries
from db.session import Database

LEASE_TTL = timedelta(seconds=30)


class Lease:
    """This process's claim to the trainer."""

    def __init__(self, database: Database, holder: str, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._holder = holder
        self._clock = clock

    def acquire(self) -> int | None:
        """Take or renew the lease; returns its epoch, None when another process holds it."""
        now = self._clock()
        with self._database.write() as session:
            row = queries.lock_lease(session)
            if row is None:
                row = TrainerLease(id=1, holder=self._holder, epoch=1, expires_at=now + LEASE_TTL)
                session.add(row)
                return 1
            if row.holder != self._holder:
                # No clock is a lifetime ahead: that one was stamped before the clock was set back.
                running = now < row.expires_at <= now + 2 * LEASE_TTL
                if running and not _died_here(row.holder):
                    return None
                row.holder = self._holder
                row.epoch += 1
            row.expires_at = now + LEASE_TTL
            return row.epoch

    def holds(self, session: Session, epoch: int) -> bool:
        """Whether the lease is still ours with this epoch, inside the caller's transaction."""
        row = queries.lock_lease(session)
        return row is not None and row.holder == self._holder and row.epoch == epoch

    def release(self) -> None:
        """Let another process take over at once."""
        with self._database.write() as session:
            row = queries.lock_lease(session)
            if row is not None and row.holder == self._holder:
                row.expires_at = self._clock()


@cache
def this_process() -> str:
    """A holder name: where it runs, process id, and a number of its own, as ids are used again."""
    return f"{_place()}:{os.getpid()}:{secrets.token_hex(4)}"


def _died_here(holder: str) -> bool:
    """Whether `holder` names a process that would be seen from here and is gone.

    Told by ids alone: when a process began, as the system says it, moves with the clock. Of an id
    that another process has by now the lease runs out instead.
    """
    place, _, _own = holder.rpartition(":")
    place, _, process_id = place.rpartition(":")
    if place != _place() or not process_id.isdigit():
        return False
    # The one that had this very id before is gone, as in a container that was started again.
    return int(process_id) == os.getpid() or not psutil.pid_exists(int(process_id))


def _place() -> str:
    """The host, and on Linux the namespace in which process ids are looked up."""
    try:
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()[:80]}/{namespace}"
