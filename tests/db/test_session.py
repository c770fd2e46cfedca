"""Sessions: writers neither fail nor lose anything, readers change nothing."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from db.models import Prompt
from db.session import Database


def _prompt(number: int, at: datetime | None = None) -> Prompt:
    return Prompt(text=f"prompt {number}", topic="t", created_at=at or datetime.now(UTC))


def test_eight_threads_read_then_write_and_nothing_is_lost(database: Database) -> None:
    errors: list[Exception] = []

    def work(start: int) -> None:
        for number in range(start, start + 25):
            try:
                with database.write() as session:
                    session.scalar(select(func.count()).select_from(Prompt))
                    session.add(_prompt(number))
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(i * 25,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Prompt)) == 200


def test_an_error_in_the_block_rolls_all_of_it_back(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as session:
        session.add(_prompt(1))
        session.flush()
        raise RuntimeError("no")
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Prompt)) == 0


def test_what_a_reader_adds_is_thrown_away(database: Database) -> None:
    with database.read() as session:
        session.add(_prompt(1))
        session.flush()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Prompt)) == 0


def test_times_come_back_in_utc_and_naive_ones_are_refused(database: Database) -> None:
    tokyo = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=9)))
    with database.write() as session:
        session.add(_prompt(1, tokyo))
    with database.read() as session:
        stored = session.scalars(select(Prompt.created_at)).one()
    assert stored == tokyo
    assert stored.utcoffset() == timedelta(0)
    with pytest.raises(StatementError), database.write() as session:
        session.add(_prompt(2, datetime(2026, 1, 1)))


def test_foreign_keys_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        prompt = _prompt(1)
        prompt.owner_id = 999
        session.add(prompt)


def test_sqlite_commits_survive_a_power_cut(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    with database.read() as session:
        assert session.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    database.close()
