"""The tables of the console's sessions."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table, Text

from llm_proxy.records.tables import METADATA

sessions = Table(
    "state_sessions",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("operator", String(128), nullable=False),
    Column("credential", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Column("groups", Text, nullable=False, server_default="[]"),
    Index("state_sessions_expires", "expires_us"),
)
"""Who is signed in to the console, by the hash of the cookie's secret. `credential` says with what the
operator signed in: the session ends where the configuration has that no more. `groups` are those, as a
JSON list, by which somebody whom the configuration doesn't list is an operator."""

used_sign_ins = Table(
    "state_used_sign_ins",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("expires_us", BigInteger, nullable=False),
    Index("state_used_sign_ins_expires", "expires_us"),
)
"""Sign-ins by OIDC that became a session, by the hash of their state: none becomes a second one."""
