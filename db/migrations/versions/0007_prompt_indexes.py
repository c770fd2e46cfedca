"""which user was issued a prompt, what goes on from a comparison, who refused a prompt: indexes"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_INDEXES = (
    ("ix_comparisons_prompt_user", "comparisons", ["prompt_id", "user_id"]),
    ("ix_comparisons_continues_id", "comparisons", ["continues_id"]),
    ("ix_unwanted_prompts_prompt_id", "unwanted_prompts", ["prompt_id"]),
)


def upgrade() -> None:
    for name, table, columns in _INDEXES:
        op.create_index(name, table, columns)


def downgrade() -> None:
    for name, table, _ in reversed(_INDEXES):
        op.drop_index(name, table_name=table)
