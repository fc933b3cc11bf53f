"""What stands beside the evidence to find things in it: checkpoints, legal holds, deleted days, prefixes."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text

from llm_proxy.records.tables import METADATA

checkpoints = Table(
    "state_checkpoints",
    METADATA,
    Column("writer", String(36), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Index("state_checkpoints_at", "at_us"),
)
"""Where the signed checkpoints stand in `records`."""

legal_holds = Table(
    "state_legal_holds",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("run_id", String(256), primary_key=True),
    Column("by", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("placed_us", BigInteger, nullable=False),
    Column("released_us", BigInteger),
)
"""Runs whose content retention must leave alone; `released_us` is NULL while the hold stands."""

purged = Table(
    "state_purged",
    METADATA,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
)
"""Days (since 1970, UTC) whose content retention deleted, but for that of runs under a legal hold."""

prefixes = Table(
    "state_prefixes",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("hash", LargeBinary(32), primary_key=True),
    Column("run_id", String(256), nullable=False),
    Column("call_id", String(36), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("state_prefixes_at", "at_us"),
)
"""A keyed hash of all that a conversation held when a call of it ended, its reply included, by credential:
a request that begins with that goes on with that call's run."""
