"""prequential scores, personas, profiles, styles and kinds of round"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from db.models import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Plain ADD COLUMN: rebuilding a table others point to would break their foreign keys on SQLite.
    op.add_column("users", sa.Column("persona", sa.JSON(), nullable=True))
    op.add_column("users", sa.Column("profile", sa.Text(), nullable=False, server_default=""))
    op.add_column("responses", sa.Column("style", sa.String(length=32), nullable=True))
    op.add_column("responses", sa.Column("profile", sa.Text(), nullable=False, server_default=""))
    op.add_column(
        "rounds", sa.Column("kind", sa.String(length=16), nullable=False, server_default="full")
    )
    op.create_table(
        "prequential_scores",
        sa.Column("choice_id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("version_id", sa.Integer(), nullable=False),
        sa.Column("nth", sa.Integer(), nullable=False),
        sa.Column("personal_nats", sa.Double(), nullable=False),
        sa.Column("generic_nats", sa.Double(), nullable=False),
        sa.Column("wrong_nats", sa.Double(), nullable=True),
        sa.Column("wrong_user_id", sa.Integer(), nullable=True),
        sa.Column("scored_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(
            ["choice_id"], ["choices.id"], name=op.f("fk_prequential_scores_choice_id_choices")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_prequential_scores_user_id_users")
        ),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name=op.f("fk_prequential_scores_version_id_versions")
        ),
        sa.ForeignKeyConstraint(
            ["wrong_user_id"], ["users.id"], name=op.f("fk_prequential_scores_wrong_user_id_users")
        ),
        sa.PrimaryKeyConstraint("choice_id", name=op.f("pk_prequential_scores")),
    )
    op.create_index(
        op.f("ix_prequential_scores_user_id"), "prequential_scores", ["user_id"], unique=False
    )


def downgrade() -> None:
    op.drop_table("prequential_scores")
    for table, column in (
        ("rounds", "kind"),
        ("responses", "profile"),
        ("responses", "style"),
        ("users", "profile"),
        ("users", "persona"),
    ):
        op.drop_column(table, column)
