"""What SQLite goes through to answer: an index on the columns asked for, not a whole table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from db.migrate import migrate
from db.queries import bank, comparisons
from db.session import Database

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def sqlite(sqlite_url: str) -> Iterator[Database]:
    database = Database(sqlite_url)
    migrate(database)
    yield database
    database.close()


def plan_of(database: Database, ask: Callable[[Session], object]) -> str:
    """How the statements of `ask` are carried out, one step a line."""
    asked: list[tuple[str, Any]] = []

    def keep(_connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        asked.append((statement, values))

    with database.write() as session:
        event.listen(database.engine, "before_cursor_execute", keep)
        ask(session)
        event.remove(database.engine, "before_cursor_execute", keep)
        connection = session.connection()
        steps = [
            row[3]
            for statement, values in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    return "\n".join(steps)


def _count(session: Session) -> object:
    return comparisons.count_prefetched(session, 1, 2)


def _retire(session: Session) -> None:
    comparisons.retire_prefetched(session, 1, 2, _NOW)


def _share(session: Session) -> object:
    return comparisons.shared_comparison(session, 1, 2)


@pytest.mark.parametrize("ask", [_count, _retire, _share])
def test_which_version_made_a_comparison_is_looked_up_by_its_side(
    sqlite: Database, ask: Callable[[Session], object]
) -> None:
    plan = plan_of(sqlite, ask)
    # The index of the unique constraint, which SQLite names itself.
    assert "responses USING INDEX sqlite_autoindex_responses_1 (comparison_id=? AND side=?)" in plan
    assert "ix_responses_version_id" not in plan


def test_whether_a_prompt_was_issued_is_looked_up(sqlite: Database) -> None:
    plan = plan_of(sqlite, lambda session: comparisons.fresh_prompt_ids(session, 1))
    assert "ix_comparisons_prompt_user (prompt_id=? AND user_id=?)" in plan, plan


def test_who_refused_a_prompt_is_looked_up(sqlite: Database) -> None:
    plan = plan_of(sqlite, lambda session: bank.hand_on_refusals(session, 1, 2))
    assert "ix_unwanted_prompts_prompt_id" in plan
