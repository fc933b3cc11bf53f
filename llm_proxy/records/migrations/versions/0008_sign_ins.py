"""Signing in by OIDC: by which groups somebody is an operator, and sign-ins that were used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("state_sessions", sa.Column("groups", sa.Text(), nullable=False, server_default="[]"))
    op.create_table(
        "state_used_sign_ins",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("state_used_sign_ins_expires", "state_used_sign_ins", ["expires_us"])


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
