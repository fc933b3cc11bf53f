"""What each rule of the policy did, by the hour."""

from __future__ import annotations

import json
from collections import defaultdict

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
_HOUR_US = 3_600_000_000


def upgrade() -> None:
    """Counts the verdicts on record: from here on they are counted as they are written."""
    table = op.create_table(
        "state_rule_hits",
        sa.Column("hour", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("rule", sa.String(length=256), nullable=False),
        sa.Column("said", sa.String(length=16), nullable=False),
        sa.Column("hits", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", "rule", "said"),
    )
    found: defaultdict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0])
    query = sa.text("SELECT at_us, body FROM records WHERE kind = 'call.verdicts'")
    for at_us, body in op.get_bind().execute(query.execution_options(yield_per=500)):
        for rule, said in _spoke(bytes(body)):
            sums = found[at_us // _HOUR_US, rule, said]
            sums[:] = sums[0] + 1, max(sums[1], at_us)
    rows = [(*key, *sums) for key, sums in sorted(found.items())]
    names = ("hour", "rule", "said", "hits", "last_us")
    op.bulk_insert(table, [dict(zip(names, row, strict=True)) for row in rows])


def _spoke(body: bytes) -> list[tuple[str, str]]:
    """The rules, and what each said. None of a record that was damaged, which `audit verify` names."""
    try:
        decisions = json.loads(body)["decisions"]
        return [
            (rule[:256], said)
            for one in decisions
            for n, rule in enumerate(dict.fromkeys((one.get("rule", ""), *one.get("hits", ()))))
            if isinstance(said := "also" if n else one["decision"], str) and isinstance(rule, str)
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []


def downgrade() -> None:
    raise RuntimeError("evidence is append-only: restore a backup instead of going back")
