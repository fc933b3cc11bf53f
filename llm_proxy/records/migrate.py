"""Brings the store's tables to the newest form, by Alembic, once however many processes start together."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from llm_proxy.records.engine import unhurried

LOCK = 0x6C6C6D70726F7879
"""PostgreSQL advisory lock (the bytes of `llmproxy`) that one migrating process holds."""
WAIT_MS = 600_000
"""For another process that migrates a SQLite store: it may read every record."""


class NewerStore(Exception):
    """The store was made by a newer version of the proxy."""


def upgrade(engine: Engine) -> str:
    """Migrates where the store isn't at the newest revision; returns that.

    The write lock (SQLite) or an advisory lock keeps others out meanwhile. A store that is up to date is
    only read, so that nobody waits here for a lock that has nothing to do with a migration.
    Raises `NewerStore` where the store's revision isn't one that this version knows.
    """
    current, head = status(engine)
    if current == head:
        return head
    waits = {"writes": True, "busy_ms": WAIT_MS}  # PostgreSQL's lock has no end
    with unhurried(engine.connect()).execution_options(**waits) as connection, connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SET LOCAL lock_timeout = 0"))  # another's migration may take long
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in {one.revision for one in _script().walk_revisions()}:
            raise NewerStore(
                f"The store is at revision {current}, which this version doesn't know: "
                "run the version that made it, or give `store:` another database."
            )
        if current != head:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return head


def status(engine: Engine) -> tuple[str | None, str]:
    """The store's revision (None where it has none) and the newest."""
    with engine.connect() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, _script().get_current_head() or ""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())
