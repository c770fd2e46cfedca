"""A database URL → sessions that read, sessions that write.

SQLite: WAL, synchronous=FULL (an acknowledged choice survives a power cut), `BEGIN IMMEDIATE` for
writers (deferred transactions that upgrade fail with "locked"), and one process-wide lock around
writing transactions (SQLite before 3.51.3 can corrupt its WAL when two connections checkpoint).
Its `lower` is Python's: no index and no constraint may be on it, as other programs have another.
Knows nothing of the tables.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.orm import Session

_BUSY_TIMEOUT_S = 15.0


class Database:
    """One connection pool. `read()` and `write()` are the only ways to a session.

    Raises:
        sqlalchemy.exc.ArgumentError: the URL cannot be parsed.
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername in {"postgres", "postgresql"}:
            parsed = parsed.set(drivername="postgresql+psycopg")
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._write_lock: AbstractContextManager[Any] = (
            threading.RLock() if self.is_sqlite else nullcontext()
        )
        if self.is_sqlite:
            self.engine: Engine = create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_S})
            _prepare_sqlite(self.engine)
        else:
            self.engine = create_engine(
                parsed, pool_pre_ping=True, connect_args={"connect_timeout": 10}
            )

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for reading; whatever it changed is thrown away."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session whose block is one transaction: committed at its end, rolled back on error."""
        with self._write_lock, Session(self.engine, expire_on_commit=False) as session:
            session.connection(execution_options={"attune_write": True})
            yield session
            session.commit()

    def ping(self) -> None:
        """Raises sqlalchemy.exc.SQLAlchemyError when the database does not answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(dbapi_connection: Any, _record: Any) -> None:
        dbapi_connection.isolation_level = None  # SQLAlchemy begins, not the driver
        # SQLite's own knows ASCII only, so that a search for "Über" would not find "über".
        dbapi_connection.create_function("lower", 1, _lower, deterministic=True)
        cursor = dbapi_connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("attune_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _lower(text: str | None) -> str | None:
    return None if text is None else text.lower()


def one_at_a_time(session: Session, key: int) -> None:
    """Until the transaction ends no other process has this key; SQLite has one writer anyway.

    Args:
        key: any number that is no other purpose's.
    """
    if session.connection().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})
