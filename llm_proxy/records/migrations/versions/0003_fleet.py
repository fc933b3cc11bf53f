"""What processes tell each other of the targets: breakers, and what each sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "state_breakers",
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("until_us", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.Column("writer", sa.String(length=36), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "state_targets",
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("writer", sa.String(length=36), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("in_flight", sa.Integer(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.BigInteger(), nullable=False),
        sa.Column("last_failure", sa.String(length=32), nullable=False),
        sa.Column("last_failure_us", sa.BigInteger(), nullable=False),
        sa.Column("whole_us", sa.BigInteger(), nullable=False),
        sa.Column("streamed_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", "writer"),
    )


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
