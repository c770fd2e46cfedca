"""the annotator's desk: preferences, follow-ups, repeats, unwanted prompts"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from db.models import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_POINTERS = ("repeat_of_id", "continues_id")


def _columns() -> list[tuple[str, sa.Column[Any]]]:
    return [
        ("users", sa.Column("introduced_at", UtcDateTime(), nullable=True)),
        ("users", sa.Column("consented_at", UtcDateTime(), nullable=True)),
        ("users", sa.Column("daily_goal", sa.Integer(), nullable=True)),
        ("users", sa.Column("language", sa.String(16), nullable=False, server_default="")),
        ("users", sa.Column("keys_off", sa.Boolean(), nullable=False, server_default=sa.false())),
        ("users", sa.Column("liked_topics", sa.JSON(), nullable=True)),
        ("prompts", sa.Column("earlier", sa.JSON(), nullable=True)),
        ("comparisons", sa.Column("stopped_at", UtcDateTime(), nullable=True)),
        ("comparisons", sa.Column("revealed_at", UtcDateTime(), nullable=True)),
        ("responses", sa.Column("attempts", sa.Integer(), nullable=False, server_default="1")),
    ]


def upgrade() -> None:
    # Plain ADD COLUMN: rebuilding a table others point to would break their foreign keys on SQLite.
    for table, added in _columns():
        op.add_column(table, added)
    for column in _POINTERS:
        # In words, as Alembic has no foreign key in SQLite's ADD COLUMN.
        op.execute(
            f"ALTER TABLE comparisons ADD COLUMN {column} INTEGER"
            f" CONSTRAINT fk_comparisons_{column}_comparisons REFERENCES comparisons (id)"
        )
    op.create_index(
        op.f("ix_comparisons_repeat_of_id"), "comparisons", ["repeat_of_id"], unique=False
    )
    op.create_table(
        "unwanted_prompts",
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("prompt_id", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["prompt_id"], ["prompts.id"], name=op.f("fk_unwanted_prompts_prompt_id_prompts")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_unwanted_prompts_user_id_users")
        ),
        sa.PrimaryKeyConstraint("user_id", "prompt_id", name=op.f("pk_unwanted_prompts")),
    )


def downgrade() -> None:
    op.drop_table("unwanted_prompts")
    op.drop_index(op.f("ix_comparisons_repeat_of_id"), table_name="comparisons")
    for column in _POINTERS:
        op.drop_column("comparisons", column)
    for table, added in _columns():
        op.drop_column(table, added.name)
