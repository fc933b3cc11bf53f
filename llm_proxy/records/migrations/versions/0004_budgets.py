"""Concurrency in the ledger; envelopes, daily sums, prices, frozen agents, token errors and webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_SPENT_BY = ("agent_id", "team", "user_id", "model", "target", "provider", "tags")
_SPENT_ON = (
    "requests",
    "refused",
    "failed",
    "retried",
    "unpriced",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "micro_usd",
    "lost_micro_usd",
    "guessed_micro_usd",
)
_TOOL_SPENT_ON = ("requests", "tool_calls", "denied", "input_tokens", "output_tokens", "micro_usd")


def upgrade() -> None:
    for table, columns in (
        ("state_counters", ("used_concurrency", "held_concurrency")),
        ("state_holds", ("held_concurrency", "floor_concurrency")),
    ):
        for column in columns:
            op.add_column(table, sa.Column(column, sa.BigInteger(), nullable=False, server_default="0"))
    _calls_and_runs()
    _sums("state_spend", _SPENT_BY, _SPENT_ON)
    _sums("state_tool_spend", (*_SPENT_BY, "tool"), _TOOL_SPENT_ON)
    op.create_table(
        "state_agents",
        sa.Column("agent_id", sa.String(length=128), nullable=False),
        sa.Column("frozen_us", sa.BigInteger(), nullable=True),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent_id"),
    )
    op.create_table(
        "state_prices",
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=256), nullable=False),
        sa.Column("rates", sa.Text(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "state_token_errors",
        sa.Column("key", sa.String(length=256), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("mean_ppm", sa.BigInteger(), nullable=False),
        sa.Column("worst_ppm", sa.BigInteger(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "state_deliveries",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("webhook", sa.String(length=128), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("next_us", sa.BigInteger(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("ended_us", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("id", "webhook"),
    )
    op.create_index("state_deliveries_next", "state_deliveries", ["webhook", "next_us"])
    op.create_index("state_deliveries_ended", "state_deliveries", ["ended_us"])
    op.add_column("state_keys", sa.Column("changed_us", sa.BigInteger(), nullable=True))
    op.create_index("state_keys_agent", "state_keys", ["agent_id", "created_us"])
    _where_set("state_keys_changed", "state_keys", "changed_us")


def _calls_and_runs() -> None:
    op.add_column("state_calls", sa.Column("tags", sa.Text(), nullable=False, server_default=""))
    for column in ("cache_write_tokens", "lost_micro_usd"):
        op.add_column("state_calls", sa.Column(column, sa.BigInteger(), nullable=True))
    op.add_column("state_calls", sa.Column("price", sa.String(length=64), nullable=True))
    for name, kind in (
        ("parent_agent_id", sa.String(length=128)),
        ("purpose", sa.Text()),
        ("trigger", sa.Text()),
        ("envelope", sa.Text()),
        ("ended_why", sa.String(length=256)),
    ):
        op.add_column("state_runs", sa.Column(name, kind, nullable=False, server_default=""))
    for name in ("expires_us", "ended_us"):
        op.add_column("state_runs", sa.Column(name, sa.BigInteger(), nullable=True))
    verified = sa.Column("user_verified", sa.Boolean(), nullable=False, server_default=sa.false())
    op.add_column("state_runs", verified)
    _where_set("state_runs_ended", "state_runs", "ended_us")
    _where_set("state_runs_expires", "state_runs", "expires_us")
    named = sa.text("parent_run_id <> ''")
    op.create_index(
        "state_runs_parent", "state_runs", ["parent_run_id"], sqlite_where=named, postgresql_where=named
    )


def _where_set(name: str, table: str, column: str) -> None:
    where = sa.text(f"{column} IS NOT NULL")
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)


def _sums(name: str, by: tuple[str, ...], on: tuple[str, ...]) -> None:
    op.create_table(
        name,
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("id", sa.LargeBinary(length=16), nullable=False),
        *(sa.Column(column, sa.Text(), nullable=False) for column in by),
        *(sa.Column(column, sa.BigInteger(), nullable=False) for column in on),
        sa.PrimaryKeyConstraint("day", "id"),
    )


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
