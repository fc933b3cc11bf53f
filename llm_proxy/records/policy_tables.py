"""The tables of the action policy: counters, approvals, what happened in a run, and what agents never saw."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, String, Table, Text, text

from llm_proxy.records.tables import METADATA

counts = Table(
    "state_counts",
    METADATA,
    Column("cap", String(160), primary_key=True),
    Column("subject", String(400), primary_key=True),
    Column("day", Integer, primary_key=True, autoincrement=False),
    Column("used", BigInteger, nullable=False),
)
"""What the policy's caps by day and its sums have used: `cap` is `day.calls`, `day.writes` or `sum:ID`,
`subject` whose it is (an agent, a user, or an agent's run), `day` the caller's budget day (since 1970; 0 for
a whole run). `used` is in millionths for a sum."""

rule_hits = Table(
    "state_rule_hits",
    METADATA,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("rule", String(256), primary_key=True),
    Column("said", String(16), primary_key=True),
    Column("hits", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
)
"""How often a rule spoke in an hour (since 1970, UTC): `said` is what it decided, or `also` where another
did. What no rule decided stands under an empty one."""

approvals = Table(
    "state_approvals",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("agent_id", String(128), nullable=False),
    Column("run_id", String(256), nullable=False),
    Column("call_id", String(36), nullable=False),
    Column("tool_call_id", String(256), nullable=False),
    Column("user_id", String(256), nullable=False),
    Column("tool", String(256), nullable=False),
    Column("effect", String(16), nullable=False),
    Column("risk", String(16), nullable=False),
    Column("arguments", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("schema_hash", String(64), nullable=False),
    Column("policy", String(64), nullable=False),
    Column("rule", String(256), nullable=False),
    Column("why", Text, nullable=False),
    Column("approval", String(128), nullable=False),
    Column("approvers", Text, nullable=False),
    Column("quorum", Integer, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("valid_us", BigInteger, nullable=False),
    Column("requested_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Column("valid_until_us", BigInteger),
    Column("decided_us", BigInteger),
    Index("state_approvals_action", "agent_id", "run_id", "digest"),
    Index("state_approvals_changed", "changed_us"),
    Index(
        "state_approvals_pending",
        "expires_us",
        sqlite_where=text("status = 'pending'"),
        postgresql_where=text("status = 'pending'"),
    ),
)
"""One row per action that was to be approved. `status`: pending, approved (a grant, as long as `uses_left`
and `valid_until_us` say), denied, expired. `approvers` is a JSON list as the policy says it, `valid_us` how
long a grant is good once it's given, `uses` how often."""

votes = Table(
    "state_votes",
    METADATA,
    Column("approval_id", String(36), primary_key=True),
    Column("operator", String(128), primary_key=True),
    Column("decision", String(16), nullable=False),
    Column("reason", Text, nullable=False),
    Column("via", String(32), nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
"""What each person said of an approval: approve or deny. The first word of each stands."""

links = Table(
    "state_links",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("approval_id", String(36), nullable=False),
    Column("operator", String(128), nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("used_us", BigInteger),
    Index("state_links_approval", "approval_id"),
)
"""One-time links by which one person decides one approval; only the hash of the link's secret is kept."""

run_events = Table(
    "state_run_events",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("run_id", String(256), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("by", String(128), nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
"""When each named event (such as `human-checkpoint`) last happened in a run."""

effects = Table(
    "state_effects",
    METADATA,
    Column("id", String(36), primary_key=True),
    Column("agent_id", String(128), nullable=False),
    Column("run_id", String(256), nullable=False),
    Column("tool_call_id", String(256), nullable=False),
    Column("tool", String(256), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("url", Text, nullable=False),
    Column("ref", String(256), nullable=False),
    Column("status", String(32), nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Index("state_effects_run", "agent_id", "run_id", "at_us"),
)
"""Side effects that an agent or a tool reported, and the released call that each came of."""

unseen = Table(
    "state_unseen",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("run_id", String(256), primary_key=True),
    Column("key", String(64), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("at_us", BigInteger, nullable=False),
)
"""Calls that were denied and that the agent never saw, with what the model was told of each: where the reply
of `key` comes back in the history they are put back. The first of a key stands. `body` is JSON."""

classified = Table(
    "state_classified",
    METADATA,
    Column("agent_id", String(128), primary_key=True),
    Column("run_id", String(256), primary_key=True),
    Column("token", LargeBinary(16), primary_key=True),
    Column("sensitivity", Integer, nullable=False),
    Column("words", Integer, nullable=False),
    Column("length", Integer, nullable=False),
    Column("rule", String(128), nullable=False),
)
"""Values of classified fields that came into a run: a keyed hash of each one's normalised words, how many
words and characters it has, and its label's rank. No value itself is kept."""
