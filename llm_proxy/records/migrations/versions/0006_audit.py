"""Checkpoints, legal holds, deleted days, prefixes of conversations, and how far the search index is."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("state_writers", _counter("searched_seq"))
    if op.get_bind().dialect.name == "postgresql":
        _add_search()
        for table in ("records", "blobs", "state_texts"):
            # Rows of up to a page stand in it: out of line they take more room, and a second table's pages.
            op.execute(f"ALTER TABLE {table} SET (toast_tuple_target = 8160)")
    op.add_column("state_dead_letters", _empty("agent_id", 128))
    op.add_column("state_dead_letters", _empty("run_id", 256))
    op.add_column("state_dead_letters", _empty("writer", 36))
    op.add_column("state_dead_letters", _counter("seq"))
    op.create_table(
        "state_checkpoints",
        _text("writer", 36),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        _number("at_us"),
        sa.PrimaryKeyConstraint("writer", "seq"),
    )
    op.create_index("state_checkpoints_at", "state_checkpoints", ["at_us"])
    op.create_table(
        "state_covered",
        _text("writer", 36),
        _number("seq"),
        sa.PrimaryKeyConstraint("writer"),
    )
    configs = sa.text("kind = 'config.loaded'")
    op.create_index("records_config", "records", ["at_us"], sqlite_where=configs, postgresql_where=configs)
    freezes = sa.text("kind = 'agent.frozen'")
    op.create_index("records_frozen", "records", ["at_us"], sqlite_where=freezes, postgresql_where=freezes)
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
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        _counter("blobs"),
        _counter("bytes"),
        _counter("kept"),
        sa.PrimaryKeyConstraint("epoch"),
    )
    op.create_table(
        "state_prefixes",
        _text("agent_id", 128),
        _text("key_id", 64),
        sa.Column("hash", sa.LargeBinary(length=32), nullable=False),
        _text("call_id", 36),
        _text("run_id", 256),
        sa.Column("system", sa.LargeBinary(length=16), nullable=False),
        _number("at_us"),
        sa.PrimaryKeyConstraint("agent_id", "key_id", "hash", "call_id"),
    )
    op.create_index("state_prefixes_at", "state_prefixes", ["at_us"])
    op.create_table(
        "state_traces",
        sa.Column("trace_id", sa.LargeBinary(length=16), nullable=False),
        _text("agent_id", 128),
        _text("run_id", 256),
        _number("at_us"),
        sa.PrimaryKeyConstraint("trace_id", "agent_id", "run_id"),
    )
    op.create_index("state_traces_at", "state_traces", ["at_us"])


def _add_search() -> None:
    """The search index: SQLite has its own in a file beside the store."""
    op.create_table(
        "state_texts",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", sa.LargeBinary(length=16), nullable=False),
        _text("call_id", 36),
        _text("agent_id", 128),
        _text("run_id", 256),
        _number("at_us"),
        _text("kind", 16),
        _text("tool", 256),
        sa.Column("told", sa.LargeBinary()),
        sa.Column("words", postgresql.TSVECTOR()),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("state_texts_key", "state_texts", ["key"], unique=True)
    waiting, indexed = sa.text("told IS NOT NULL"), sa.text("words IS NOT NULL")
    op.create_index("state_texts_waiting", "state_texts", ["id"], postgresql_where=waiting)
    op.create_index(
        "state_texts_words", "state_texts", ["words"], postgresql_using="gin", postgresql_where=indexed
    )


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _empty(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False, server_default="")


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _counter(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
