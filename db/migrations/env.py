"""Alembic's environment: runs on the connection it is handed, or on ATTUNE_DATABASE_URL."""

from __future__ import annotations

import os
from typing import Any, Literal

from alembic import context
from sqlalchemy.engine import Connection

from db.models import Base, UtcDateTime
from db.session import Database


def _render(kind: str, item: Any, _autogen: Any) -> str | Literal[False]:
    return "UtcDateTime()" if kind == "type" and isinstance(item, UtcDateTime) else False


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_item=_render,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    database = Database(os.environ.get("ATTUNE_DATABASE_URL") or "sqlite:///data/attune.db")
    with database.engine.connect() as own:
        _run(own)
        own.commit()
    database.close()
