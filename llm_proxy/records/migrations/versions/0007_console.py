"""Sessions of the console, and what finds the readings of content among the records."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "state_sessions",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("operator", sa.String(length=128), nullable=False),
        sa.Column("credential", sa.String(length=64), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("state_sessions_expires", "state_sessions", ["expires_us"])
    read = sa.text("kind = 'content.read'")
    op.create_index("records_read", "records", ["at_us"], sqlite_where=read, postgresql_where=read)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
