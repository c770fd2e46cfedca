"""Bring a database to the newest migration. Knows nothing of settings."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

from db.session import Database, one_at_a_time

_MIGRATIONS = Path(__file__).parent / "migrations"
_ADVISORY_KEY = 20402_05133  # any fixed number: one migrating process at a time on Postgres


def migration_config(connection: Connection) -> Config:
    """Alembic's configuration for an open connection."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def migrate(database: Database) -> None:
    """Upgrade to the newest revision; safe when several processes start at once.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database cannot be reached or written.
    """
    with database.write() as session:
        one_at_a_time(session, _ADVISORY_KEY)
        command.upgrade(migration_config(session.connection()), "head")
