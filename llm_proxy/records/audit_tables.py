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

covered = Table(
    "state_covered",
    METADATA,
    Column("writer", String(36), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)
"""How far each writer's chain is signed by checkpoints: for the process that makes the next."""

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
    Column("ended_us", BigInteger),
    Column("blobs", BigInteger, nullable=False, server_default="0"),
    Column("bytes", BigInteger, nullable=False, server_default="0"),
    Column("kept", BigInteger, nullable=False, server_default="0"),
)
"""Days (since 1970, UTC) whose content retention deletes, each noted before the first of it goes. `at_us` is
when that last began, `ended_us` NULL while it's under way, `kept` what stays for runs under a legal hold."""

prefixes = Table(
    "state_prefixes",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("key_id", String(64), primary_key=True),
    Column("hash", LargeBinary(32), primary_key=True),
    Column("call_id", String(36), primary_key=True),
    Column("run_id", String(256), nullable=False),
    Column("system", LargeBinary(16), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("state_prefixes_at", "at_us"),
)
"""A keyed hash of all that a conversation held when a call of it ended, its reply included, by credential:
a request that begins with that goes on with that call's run. `system`: of the instructions it was under."""

traces = Table(
    "state_traces",
    METADATA,
    Column("trace_id", LargeBinary(16), primary_key=True),
    Column("agent_id", String(128), primary_key=True),
    Column("run_id", String(256), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Index("state_traces_at", "at_us"),
)
"""Runs by the callers' traces in which calls of theirs came."""
