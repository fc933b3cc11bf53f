"""The keys that were issued to an agent and are good now, by their hash."""

from __future__ import annotations

from sqlalchemy import Connection, or_, select

from llm_proxy.records.tables import keys


def active_key_hashes(connection: Connection, agent_id: str, now_us: int) -> list[str]:
    """SHA-256 (hex) of each."""
    query = select(keys.c.sha256).where(
        keys.c.agent_id == agent_id,
        keys.c.revoked_us.is_(None),
        or_(keys.c.expires_us.is_(None), keys.c.expires_us > now_us),
    )
    return [row.sha256 for row in connection.execute(query)]
