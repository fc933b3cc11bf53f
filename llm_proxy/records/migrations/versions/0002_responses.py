"""Responses that a later request may go on from, by their ids."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "state_responses",
        sa.Column("id", sa.String(length=256), nullable=False),
        sa.Column("agent_id", sa.String(length=128), nullable=False),
        sa.Column("call_id", sa.String(length=36), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("target", sa.String(length=256), nullable=False),
        sa.Column("charged", sa.Boolean(), nullable=False),
        sa.Column("denied", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", "agent_id"),
    )


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
