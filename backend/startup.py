"""What must hold before the program starts: a data folder with room, a database that answers.

Each failure is one clear line (`ConfigurationError`). Knows nothing of models and of the web.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from alembic.util import CommandError
from filelock import FileLock, Timeout
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from backend.errors import ConfigurationError
from db.migrate import migrate
from db.session import Database

_LEAST_FREE_BYTES = 200 * 2**20
_PROBE_BYTES = 64 * 2**10


def prepare_data_dir(folder: Path) -> Path:
    """The data folder with its `versions` folder, writable and with room; returns it absolute.

    Raises:
        ConfigurationError: it cannot be made or written, or the disk is full.
    """
    absolute = folder.expanduser().absolute()
    try:
        (absolute / "versions").mkdir(parents=True, exist_ok=True)
        # Under a name of its own: other processes may be starting on the same folder.
        with NamedTemporaryFile(dir=absolute, prefix=".probe-") as probe:
            probe.write(b"\0" * _PROBE_BYTES)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write to the data folder {absolute}: {error.strerror}"
        ) from error
    free = shutil.disk_usage(absolute).free
    if free < _LEAST_FREE_BYTES:
        raise ConfigurationError(
            f"the disk of the data folder {absolute} is full: "
            f"{free // 2**20} MB free, {_LEAST_FREE_BYTES // 2**20} MB needed"
        )
    return absolute


def hold_alone(url: str) -> Callable[[], None]:
    """Keep other processes off a SQLite file while this one lives; returns what lets go of it.

    Only this process may write it (see `db.session`). Other databases are not held. However the
    process ends, the system lets go.

    Raises:
        ConfigurationError: another process holds it.
    """
    try:
        asked = make_url(url)
    except (ArgumentError, ValueError):
        return lambda: None  # said by who opens it
    file = asked.database if asked.get_backend_name() == "sqlite" else None
    # Where there is no folder, opening the database says so; the lock would make one.
    if not file or file == ":memory:" or not Path(file).absolute().parent.is_dir():
        return lambda: None
    lock = FileLock(f"{file}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ConfigurationError(
            f"another Attune uses the database {file}; several processes need Postgres"
        ) from error
    except OSError:  # not ours to write: opening the database says so
        return lambda: None
    return lock.release


def open_database(url: str) -> Database:
    """A migrated database.

    Raises:
        ConfigurationError: the URL is wrong, or the database does not answer, cannot be written or
        was migrated by newer code.
    """
    try:
        database = Database(url)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        # ValueError: a port that is no number.
        raise ConfigurationError(
            "ATTUNE_DATABASE_URL is not a database URL this program knows; "
            "examples: sqlite:///attune.db, postgresql://user:password@host/attune"
        ) from error
    try:
        database.ping()
        migrate(database)
    except (DBAPIError, CommandError) as error:
        database.close()
        shown = make_url(url).render_as_string(hide_password=True)
        raise ConfigurationError(f"cannot use the database {shown}: {_why(error)}") from error
    return database


def _why(error: DBAPIError | CommandError) -> str:
    if isinstance(error, CommandError):  # a migration is noted there that this code does not have
        return f"it is from a newer Attune ({error})"
    return " ".join(str(error.orig).split())


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ConfigurationError: the address is taken or not this machine's.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host_and_port(host, port)}: {error.strerror}; "
            "ATTUNE_PORT takes another port"
        ) from error


def host_and_port(host: str, port: int) -> str:
    """The two as they stand in an address: IPv6 needs brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
