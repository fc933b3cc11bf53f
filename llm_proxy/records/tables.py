"""The store's tables. Evidence is append-only; whatever changes is a `state_*` table beside it.

`records` is the evidence: one row per thing that happened, chained per writer, its `body` the JSON that
was hashed. `blobs` holds content, addressed by salted hash. Every `state_*` table can be rebuilt from
the records, but for credentials, salts, cursors and leases, and for what processes tell each other of the
targets, which is worth nothing later.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

METADATA = MetaData()


def _where_set(name: str, column: str) -> Index:
    """An index of the few rows whose `column` isn't NULL: small, and used whatever is known of the table."""
    where = text(f"{column} IS NOT NULL")
    return Index(name, column, sqlite_where=where, postgresql_where=where)


records = Table(
    "records",
    METADATA,
    Column("writer", String(36), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(32), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("call_id", String(36)),
    Column("run_id", String(256)),
    Column("agent_id", String(128)),
    Column("body", LargeBinary, nullable=False),
    Column("hash", LargeBinary(32), nullable=False),
    Index("records_call", "call_id"),
    Index(
        "records_read",
        "at_us",
        sqlite_where=text("kind = 'content.read'"),
        postgresql_where=text("kind = 'content.read'"),
    ),
    Index(
        "records_config",
        "at_us",
        sqlite_where=text("kind = 'config.loaded'"),
        postgresql_where=text("kind = 'config.loaded'"),
    ),
    Index(
        "records_frozen",
        "at_us",
        sqlite_where=text("kind = 'agent.frozen'"),
        postgresql_where=text("kind = 'agent.frozen'"),
    ),
)
"""`hash` = SHA-256 of the previous row's hash and every other column (see `chain.py`)."""

blobs = Table(
    "blobs",
    METADATA,
    Column("id", LargeBinary(32), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("codec", String(8), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("blobs_epoch", "epoch"),
)
"""`id` = keyed BLAKE2b of the content under its epoch's salt; `epoch` = day number since 1970 (UTC)."""

salts = Table(
    "state_salts",
    METADATA,
    Column("epoch", Integer, primary_key=True, autoincrement=False),
    Column("salt", LargeBinary(32), nullable=False),
)

calls = Table(
    "state_calls",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("run_id", String(256), nullable=False),
    Column("agent_id", String(128), nullable=False),
    Column("team", String(128), nullable=False),
    Column("user_id", String(256), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("dialect", String(32), nullable=False),
    Column("stream", Boolean, nullable=False),
    Column("model", String(256), nullable=False),
    Column("status", String(16), nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("tags", Text, nullable=False, server_default=""),
    Column("ended_us", BigInteger),
    Column("target", String(128)),
    Column("provider", String(64)),
    Column("attempts", Integer),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("micro_usd", BigInteger),
    Column("lost_micro_usd", BigInteger),
    Column("cost_label", String(16)),
    Column("price", String(64)),
    Column("error", String(32)),
    # All that is asked of runs by their calls is in it: reading the rows too takes up to six times as long.
    Index("state_calls_by_run", "run_id", "agent_id", "started_us", "status", "micro_usd", "model", "error"),
    Index("state_calls_started", "started_us"),
    Index(
        "state_calls_open",
        "status",
        sqlite_where=text("status = 'open'"),
        postgresql_where=text("status = 'open'"),
    ),
)

runs = Table(
    "state_runs",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("run_id", String(256), primary_key=True),
    Column("parent_run_id", String(256), nullable=False),
    Column("team", String(128), nullable=False),
    Column("user_id", String(256), nullable=False),
    Column("role_at_start", String(128), nullable=False),
    Column("inferred", Boolean, nullable=False),
    Column("started_us", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("sensitivity", Integer, nullable=False),
    Column("untrusted", Boolean, nullable=False),
    Column("labels", Text, nullable=False),
    Column("denials", Integer, nullable=False),
    Column("parent_agent_id", String(128), nullable=False, server_default=""),
    Column("purpose", Text, nullable=False, server_default=""),
    Column("trigger", Text, nullable=False, server_default=""),
    Column("envelope", Text, nullable=False, server_default=""),
    Column("expires_us", BigInteger),
    Column("ended_us", BigInteger),
    Column("ended_why", String(256), nullable=False, server_default=""),
    Column("user_verified", Boolean, nullable=False, server_default=false()),
    Column("marks", Integer, nullable=False, server_default="0"),
    Index("state_runs_started", "started_us"),
    _where_set("state_runs_ended", "ended_us"),
    Index(
        "state_runs_expires",
        "expires_us",
        sqlite_where=text("expires_us IS NOT NULL"),
        postgresql_where=text("expires_us IS NOT NULL"),
    ),
    Index(
        "state_runs_parent",
        "parent_run_id",
        sqlite_where=text("parent_run_id <> ''"),
        postgresql_where=text("parent_run_id <> ''"),
    ),
)
"""A run, the envelope it was opened with (JSON, empty for none), and what the policy must remember of it.
`parent_run_id` without a `parent_agent_id` is only a trace link.
`revision` rises with each change, so that a verdict that rests on an older state can't be committed.
`marks` says which further tables hold something of the run (see `runstate.Mark`)."""

tool_calls = Table(
    "state_tool_calls",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("run_id", String(256), primary_key=True),
    Column("call_id", String(36), primary_key=True),
    Column("choice", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("tool_call_id", String(256), nullable=False),
    Column("tool", String(256), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("effect", String(16), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("answered_us", BigInteger),
    Column("result", String(64)),
)

responses = Table(
    "state_responses",
    METADATA,
    Column("id", String(256), primary_key=True),
    Column("agent_id", String(128), primary_key=True),
    Column("call_id", String(36), nullable=False),
    Column("model", String(256), nullable=False),
    Column("target", String(256), nullable=False),
    Column("charged", Boolean, nullable=False),
    Column("denied", Text, nullable=False),
)
"""Replies of the Responses API that a later request may name, by the id that the agent was given."""

writers = Table(
    "state_writers",
    METADATA,
    Column("writer", String(36), primary_key=True),
    Column("started_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),
    Column("head_seq", BigInteger, nullable=False),
    Column("head_hash", LargeBinary(32), nullable=False),
    Column("exported_seq", BigInteger, nullable=False),
    Column("searched_seq", BigInteger, nullable=False, server_default="0"),
)
"""One row per process that wrote: the head of its chain, and how far its calls were exported, and indexed
for search."""

leases = Table(
    "state_leases",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("holder", String(36), nullable=False),
    Column("until_us", BigInteger, nullable=False),
)

keys = Table(
    "state_keys",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("agent_id", String(128), nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("run_id", String(256), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger),
    Column("revoked_us", BigInteger),
    Column("changed_us", BigInteger),
    Index("state_keys_agent", "agent_id", "created_us"),
    _where_set("state_keys_changed", "changed_us"),
)
"""`changed_us` is when a key was revoked or its end moved, NULL before: by it every process hears of that."""

refusals = Table(
    "state_refusals",
    METADATA,
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", String(64), primary_key=True),
    Column("count", BigInteger, nullable=False),
)
"""Refusals of callers that could not be identified: counted, without content."""

dead_letters = Table(
    "state_dead_letters",
    METADATA,
    Column("call_id", String(36), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("agent_id", String(128), nullable=False, server_default=""),
    Column("run_id", String(256), nullable=False, server_default=""),
    Column("writer", String(36), nullable=False, server_default=""),
    Column("seq", BigInteger, nullable=False, server_default="0"),
)
"""Spans that the backend would not take, in full, and why. `call_id` is a call's id, or `run:` and a digest
for what befell a run; `writer` and `seq` name the record that they tell."""

breakers = Table(
    "state_breakers",
    METADATA,
    Column("key", String(256), primary_key=True),
    Column("until_us", BigInteger),
    Column("kind", String(32), nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("writer", String(36), nullable=False),
)
"""One row per breaker that was ever opened; `until_us` is NULL where it closed again. Times are those of
the host that wrote."""

targets = Table(
    "state_targets",
    METADATA,
    Column("key", String(256), primary_key=True),
    Column("writer", String(36), primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("in_flight", Integer, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("attempts", BigInteger, nullable=False),
    Column("failures", BigInteger, nullable=False),
    Column("last_failure", String(32), nullable=False),
    Column("last_failure_us", BigInteger, nullable=False),
    Column("whole_us", BigInteger, nullable=False),
    Column("streamed_us", BigInteger, nullable=False),
)
"""One row per target and process: requests and tokens of the last minute, attempts and failures since the
process began, and the mean time to the first event of whole and of streamed replies (µs, 0 unknown)."""

agents = Table(
    "state_agents",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("frozen_us", BigInteger),
    Column("by", String(128), nullable=False),
    Column("reason", Text, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
)
"""Agents that were ever frozen; `frozen_us` is NULL for one that was thawed."""

prices = Table(
    "state_prices",
    METADATA,
    Column("version", String(64), primary_key=True),
    Column("provider", String(64), nullable=False),
    Column("model", String(256), nullable=False),
    Column("rates", Text, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
"""Every price that a cost was ever counted with."""

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


def _sums(name: str, by: tuple[str, ...], on: tuple[str, ...]) -> Table:
    return Table(
        name,
        METADATA,
        Column("day", Integer, primary_key=True, autoincrement=False),
        Column("id", LargeBinary(16), primary_key=True),
        *(Column(column, Text, nullable=False) for column in by),
        *(Column(column, BigInteger, nullable=False) for column in on),
    )


spend = _sums("state_spend", _SPENT_BY, _SPENT_ON)
"""Daily sums (days since 1970, UTC), kept in the transaction of each settlement."""

tool_spend = _sums("state_tool_spend", (*_SPENT_BY, "tool"), _TOOL_SPENT_ON)

token_errors = Table(
    "state_token_errors",
    METADATA,
    Column("key", String(256), primary_key=True),
    Column("samples", BigInteger, nullable=False),
    Column("mean_ppm", BigInteger, nullable=False),
    Column("worst_ppm", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
)
"""By provider and model: how many prompt tokens upstreams reported for each million that was counted."""

deliveries = Table(
    "state_deliveries",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("webhook", String(128), primary_key=True),
    Column("event", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("next_us", BigInteger),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("ended_us", BigInteger),
    Column("error", Text, nullable=False, server_default=""),
    Index("state_deliveries_next", "webhook", "next_us"),
    Index("state_deliveries_ended", "ended_us"),
)
"""Events for webhooks. `next_us` is when it's tried next, NULL once it ended: delivered, or given up."""
