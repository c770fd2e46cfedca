"""Migrations: up from empty, no drift from the models, down again."""

from __future__ import annotations

import threading

from alembic import command
from sqlalchemy import inspect

from db.migrate import migrate, migration_config
from db.models import Base
from db.session import Database


def test_upgrade_makes_every_table_and_check_finds_no_drift(database: Database) -> None:
    assert set(Base.metadata.tables) < set(inspect(database.engine).get_table_names())
    with database.write() as session:
        command.check(migration_config(session.connection()))


def test_downgrade_leaves_nothing_and_upgrade_works_again(database: Database) -> None:
    with database.write() as session:
        command.downgrade(migration_config(session.connection()), "base")
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    migrate(database)
    assert "choices" in inspect(database.engine).get_table_names()


def test_several_processes_may_migrate_at_once(database: Database, database_url: str) -> None:
    with database.write() as session:
        command.downgrade(migration_config(session.connection()), "base")
    errors: list[Exception] = []

    def upgrade() -> None:
        own = Database(database_url)
        try:
            migrate(own)
        except Exception as error:
            errors.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert "choices" in inspect(database.engine).get_table_names()
