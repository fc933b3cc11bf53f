"""What listings of runs and spend by run ask of calls, in the index of a run's calls."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The index of a run's calls, made anew with more columns."""
    columns = ["run_id", "agent_id", "started_us", "status", "micro_usd", "model", "error"]
    op.create_index("state_calls_by_run", "state_calls", columns, unique=False)
    op.drop_index("state_calls_run", table_name="state_calls")


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
