"""What the store says of who may call: issued keys by their hash, and what came to an end of late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, Engine, select

from llm_proxy.records.engine import discard, hurried
from llm_proxy.records.tables import agents, keys, runs

_MOST = 500
"""Hashes in one statement."""


class IssuedKey(NamedTuple):
    """An issued key as the store has it, less the key."""

    id: str
    agent_id: str
    sha256: str
    run_id: str
    expires_us: int | None
    revoked_us: int | None


class KeyChange(NamedTuple):
    """A key that was revoked, or whose end was moved."""

    id: str
    expires_us: int | None
    revoked_us: int | None


class Frozen(NamedTuple):
    """An agent that may not call. `by` is the operator's id."""

    agent_id: str
    since_us: int
    by: str
    reason: str


class RunEnded(NamedTuple):
    agent_id: str
    run_id: str
    ended_us: int
    why: str


class Standing(NamedTuple):
    """Every agent that is frozen, and the keys and runs that changed or ended lately."""

    frozen: tuple[Frozen, ...] = ()
    keys: tuple[KeyChange, ...] = ()
    ended: tuple[RunEnded, ...] = ()


def issued_keys(connection: Connection, hashes: Sequence[str]) -> list[IssuedKey]:
    """The keys with these SHA-256, ended ones too."""
    columns = [keys.c[name] for name in IssuedKey._fields]
    found: list[IssuedKey] = []
    for start in range(0, len(hashes), _MOST):
        query = select(*columns).where(keys.c.sha256.in_(hashes[start : start + _MOST]))
        found += [IssuedKey(*row) for row in connection.execute(query)]
    return found


def frozen_agent(connection: Connection, agent_id: str) -> Frozen | None:
    found = connection.execute(_FROZEN.where(agents.c.agent_id == agent_id)).first()
    return None if found is None else Frozen(*found)


def frozen_agents(connection: Connection) -> tuple[Frozen, ...]:
    return tuple([Frozen(*row) for row in connection.execute(_FROZEN)])


def standing_since(connection: Connection, since_us: int) -> Standing:
    """As it is now; of keys and runs what changed at `since_us` or later."""
    changed = select(keys.c.id, keys.c.expires_us, keys.c.revoked_us).where(keys.c.changed_us >= since_us)
    ended = select(runs.c.agent_id, runs.c.run_id, runs.c.ended_us, runs.c.ended_why).where(
        runs.c.ended_us >= since_us
    )
    return Standing(
        frozen_agents(connection),
        tuple([KeyChange(*row) for row in connection.execute(changed)]),
        tuple([RunEnded(*row) for row in connection.execute(ended)]),
    )


_FROZEN = select(agents.c.agent_id, agents.c.frozen_us, agents.c.by, agents.c.reason).where(
    agents.c.frozen_us.is_not(None)
)


class StandingReader:
    """Reads over a connection of its own, so that it waits for no listing. Used by one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def __call__(self, since_us: int) -> Standing:
        """Raises what the database raises; the next read connects anew."""
        if self._connection is None:
            self._connection = hurried(self._engine.connect())
        try:
            with self._connection.begin():
                return standing_since(self._connection, since_us)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        discard(connection)
