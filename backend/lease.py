"""One trainer at a time: a lease row with an epoch, over any number of processes and machines.

An epoch never comes back: a process that lost its lease finds a higher epoch in the transaction
that would promote, and stops. Knows nothing of rounds.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from datetime import datetime, timedelta

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
                if row.expires_at > now and not _died_here(row.holder):
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


def this_process() -> str:
    """A holder name: host, process id and the process's start, so that reused ids differ."""
    started = psutil.Process().create_time()
    return f"{socket.gethostname()[:80]}:{os.getpid()}:{started:.2f}"


def _died_here(holder: str) -> bool:
    """Whether `holder` names a process of this host that is gone."""
    host, _, rest = holder.rpartition(":")
    host, _, process_id = host.rpartition(":")
    if host != socket.gethostname()[:80] or not process_id.isdigit():
        return False
    try:
        return f"{psutil.Process(int(process_id)).create_time():.2f}" != rest
    except psutil.NoSuchProcess:
        return True
