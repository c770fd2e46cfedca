"""what a record of styles said of a choice before it was made: log-odds, nats"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = ("personal_record_nats", "wrong_record_nats")


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column("prequential_scores", sa.Column(name, sa.Double(), nullable=True))


def downgrade() -> None:
    for name in _COLUMNS:
        op.drop_column("prequential_scores", name)
