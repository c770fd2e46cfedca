"""which text somebody agreed to: whoever agreed to another one is asked again"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("consented_to", sa.String(64), nullable=True))


def downgrade() -> None:
    op.drop_column("users", "consented_to")
