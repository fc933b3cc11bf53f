"""The policy's counters, approvals and their votes and links, events and effects of runs, unseen calls."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("state_runs", sa.Column("marks", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("state_tool_calls", sa.Column("result", sa.String(64), nullable=True))
    op.create_table(
        "state_counts",
        _text("cap", 160),
        _text("subject", 400),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        _number("used"),
        sa.PrimaryKeyConstraint("cap", "subject", "day"),
    )
    _approvals()
    op.create_table(
        "state_run_events",
        *_of_run(),
        _text("name", 128),
        _text("by", 128),
        _number("at_us"),
        sa.PrimaryKeyConstraint("agent_id", "run_id", "name"),
    )
    op.create_table(
        "state_effects",
        _text("id", 36),
        *_of_run(),
        _text("tool_call_id", 256),
        _text("tool", 256),
        _text("kind", 64),
        sa.Column("url", sa.Text(), nullable=False),
        _text("ref", 256),
        _text("status", 32),
        _number("at_us"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("state_effects_run", "state_effects", ["agent_id", "run_id", "at_us"])
    op.create_table(
        "state_unseen",
        *_of_run(),
        _text("key", 64),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        _number("at_us"),
        sa.PrimaryKeyConstraint("agent_id", "run_id", "key"),
    )
    op.create_table(
        "state_classified",
        *_of_run(),
        sa.Column("token", sa.LargeBinary(length=16), nullable=False),
        sa.Column("sensitivity", sa.Integer(), nullable=False),
        sa.Column("words", sa.Integer(), nullable=False),
        sa.Column("length", sa.Integer(), nullable=False),
        _text("rule", 128),
        sa.PrimaryKeyConstraint("agent_id", "run_id", "token"),
    )


def _approvals() -> None:
    op.create_table(
        "state_approvals",
        _text("id", 36),
        *_of_run(),
        _text("call_id", 36),
        _text("tool_call_id", 256),
        _text("user_id", 256),
        _text("tool", 256),
        _text("effect", 16),
        _text("risk", 16),
        sa.Column("arguments", sa.Text(), nullable=False),
        _text("digest", 64),
        _text("schema_hash", 64),
        _text("policy", 64),
        _text("rule", 256),
        sa.Column("why", sa.Text(), nullable=False),
        _text("approval", 128),
        sa.Column("approvers", sa.Text(), nullable=False),
        sa.Column("quorum", sa.Integer(), nullable=False),
        sa.Column("uses", sa.Integer(), nullable=False),
        _number("valid_us"),
        _number("requested_us"),
        _number("expires_us"),
        _text("status", 16),
        sa.Column("uses_left", sa.Integer(), nullable=False),
        _number("changed_us"),
        sa.Column("valid_until_us", sa.BigInteger(), nullable=True),
        sa.Column("decided_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("state_approvals_action", "state_approvals", ["agent_id", "run_id", "digest"])
    op.create_index("state_approvals_changed", "state_approvals", ["changed_us"])
    pending = sa.text("status = 'pending'")
    op.create_index(
        "state_approvals_pending",
        "state_approvals",
        ["expires_us"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_table(
        "state_votes",
        _text("approval_id", 36),
        _text("operator", 128),
        _text("decision", 16),
        sa.Column("reason", sa.Text(), nullable=False),
        _text("via", 32),
        _number("at_us"),
        sa.PrimaryKeyConstraint("approval_id", "operator"),
    )
    op.create_table(
        "state_links",
        _text("sha256", 64),
        _text("approval_id", 36),
        _text("operator", 128),
        _number("expires_us"),
        sa.Column("used_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("state_links_approval", "state_links", ["approval_id"])


def _of_run() -> tuple[sa.Column[str], ...]:
    return (_text("agent_id", 128), _text("run_id", 256))


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length=length), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=False)


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
