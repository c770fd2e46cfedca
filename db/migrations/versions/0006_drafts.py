"""of how many drafts a response is the best; what earlier choices said, no longer style records"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_WHOSE = ("personal", "wrong")


def upgrade() -> None:
    op.add_column(
        "responses", sa.Column("drafts", sa.Integer(), nullable=False, server_default="1")
    )
    for whose in _WHOSE:
        _rename(f"{whose}_record_nats", f"{whose}_taste_nats")


def downgrade() -> None:
    for whose in _WHOSE:
        _rename(f"{whose}_taste_nats", f"{whose}_record_nats")
    op.drop_column("responses", "drafts")


def _rename(old: str, new: str) -> None:
    # In place in SQLite and Postgres alike, where Alembic would copy SQLite's table.
    op.execute(f"ALTER TABLE prequential_scores RENAME COLUMN {old} TO {new}")
