"""The table of the console's sessions."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, String, Table

from llm_proxy.records.tables import METADATA

sessions = Table(
    "state_sessions",
    METADATA,
    Column("sha256", String(64), primary_key=True),
    Column("operator", String(128), nullable=False),
    Column("credential", String(64), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("expires_us", BigInteger, nullable=False),
    Index("state_sessions_expires", "expires_us"),
)
"""Who is signed in to the console, by the hash of the cookie's secret. `credential` says with what the
operator signed in: the session ends where the configuration has that no more."""
