"""Checkpoints, legal holds, deleted days, prefixes of conversations, and how far the search index is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("state_writers", _counter("searched_seq"))
    op.create_table(
        "state_checkpoints",
        _text("writer", 36),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        _number("at_us"),
        sa.PrimaryKeyConstraint("writer", "seq"),
    )
    op.create_index("state_checkpoints_at", "state_checkpoints", ["at_us"])
    op.create_table(
        "state_legal_holds",
        _text("agent_id", 128),
        _text("run_id", 256),
        _text("by", 128),
        sa.Column("reason", sa.Text(), nullable=False),
        _number("placed_us"),
        sa.Column("released_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("agent_id", "run_id"),
    )
    op.create_table(
        "state_purged",
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        _number("at_us"),
        sa.PrimaryKeyConstraint("epoch"),
    )
    op.create_table(
        "state_prefixes",
        _text("agent_id", 128),
        _text("key_id", 64),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        _text("run_id", 256),
        _text("call_id", 36),
        _number("at_us"),
        sa.PrimaryKeyConstraint("agent_id", "key_id", "hash"),
    )
    op.create_index("state_prefixes_at", "state_prefixes", ["at_us"])


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _counter(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
