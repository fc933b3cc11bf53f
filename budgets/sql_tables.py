"""The ledger's two tables, as the host's migrations create them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import BigInteger, Column, MetaData, Table, Text

from budgets.amounts import FIELDS

_USED = tuple(f"used_{name}" for name in FIELDS)
HELD = tuple(f"held_{name}" for name in FIELDS)
_FLOOR = tuple(f"floor_{name}" for name in FIELDS)


@dataclass(frozen=True, slots=True)
class LedgerTables:
    counters: Table
    holds: Table


def tables(metadata: MetaData) -> LedgerTables:
    """Define `state_counters` and `state_holds` on `metadata`, for the host's migrations.

    A counter is a row per bound. A hold's `keys` is a JSON list of the counters it is held in; where
    `expired_us` is set the row is a tombstone, and `lease_until_us` is when it may be deleted. All times
    are Unix µs.
    """
    return LedgerTables(
        counters=Table(
            "state_counters",
            metadata,
            Column("key", Text, primary_key=True),
            *_integers((*_USED, *HELD)),
            sqlite_with_rowid=False,
        ),
        holds=Table(
            "state_holds",
            metadata,
            Column("id", Text, primary_key=True),
            Column("keys", Text, nullable=False),
            *_integers((*HELD, *_FLOOR)),
            Column("lease_until_us", BigInteger, nullable=False, index=True),
            Column("created_us", BigInteger, nullable=False),
            Column("expired_us", BigInteger),
            sqlite_with_rowid=False,
        ),
    )


def _integers(names: Iterable[str]) -> list[Column[int]]:
    return [Column(name, BigInteger, nullable=False, server_default="0") for name in names]


METADATA = MetaData()
TABLES = tables(METADATA)
