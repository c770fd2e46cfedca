"""Migrations: up from empty, no drift from the models, down again."""

from __future__ import annotations

import threading

from alembic import command
from sqlalchemy import inspect, text

from db.migrate import migrate, migration_config
from db.models import Base
from db.session import Database
from tests.backend.judged import Judged
from tests.conftest import Clock


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


def _rows(database: Database, statement: str) -> list[tuple[object, ...]]:
    with database.read() as session:
        return [tuple(row) for row in session.execute(text(statement))]


def _go_to(database: Database, revision: str) -> None:
    with database.write() as session:
        command.downgrade(migration_config(session.connection()), revision)


def test_scores_and_responses_stay_when_drafts_come_and_go(
    database: Database, clock: Clock
) -> None:
    judged = Judged(database, clock)
    user, version = judged.user("mia"), judged.version()
    for tastes in ((0.7, -0.25), (None, None), (0.0, 1.5)):
        choice = judged.choice(user, judged.comparison(user, version), "a")
        judged.score(choice, version, (1.0, -1.0, 0.5), tastes=tastes)
    with database.write() as session:
        session.execute(text("UPDATE responses SET drafts = 6 WHERE side = 'A'"))
    said = (
        "SELECT personal_nats, personal_{0}_nats, wrong_{0}_nats FROM prequential_scores "
        "ORDER BY choice_id"
    )
    expected = [(1.0, 0.7, -0.25), (1.0, None, None), (1.0, 0.0, 1.5)]

    _go_to(database, "0005")
    columns = {column["name"] for column in inspect(database.engine).get_columns("responses")}
    assert "drafts" not in columns
    assert _rows(database, said.format("record")) == expected
    assert _rows(database, "SELECT count(*) FROM responses") == [(6,)]

    migrate(database)
    assert _rows(database, said.format("taste")) == expected
    # How many there had been is lost; what was made before there were drafts is the only one.
    assert _rows(database, "SELECT DISTINCT drafts FROM responses") == [(1,)]
    assert _rows(database, "SELECT side, text FROM responses ORDER BY id LIMIT 2") == [
        ("A", "A"),
        ("B", "B"),
    ]
    with database.write() as session:
        command.check(migration_config(session.connection()))
    judged.choice(user, judged.comparison(user, version), "b")  # as before
