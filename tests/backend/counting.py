"""How often a query is asked."""

from __future__ import annotations

from typing import Any

import pytest

from db.queries import rounds as queries


def asked(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """A list that grows by `name` whenever that query of `db.queries.rounds` is asked."""
    seen: list[str] = []
    query = getattr(queries, name)

    def ask(*arguments: Any, **options: Any) -> Any:
        seen.append(name)
        return query(*arguments, **options)

    monkeypatch.setattr(queries, name, ask)
    return seen
