"""Changes made in the store itself, where no proxy runs: the same jobs, in a chain of their own."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Generator
from contextlib import contextmanager

import structlog
from sqlalchemy import Engine

from llm_proxy.admin import keys, reading
from llm_proxy.admin.door import ADMIN_TOKEN
from llm_proxy.config import Config
from llm_proxy.identity import issuing
from llm_proxy.identity.issuing import Via
from llm_proxy.identity.keyring import new_key
from llm_proxy.records.batch import Job
from llm_proxy.records.engine import open_engine
from llm_proxy.records.ids import now_us, uuid7
from llm_proxy.records.migrate import upgrade
from llm_proxy.records.writer import Writer


class Offline:
    """Acts by the admin token, which was checked. Makes the store where there is none yet.

    Raises `NotFound`, `Unclear`, `NewerStore`, or what the database raises.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    def issue(self, wish: keys.KeyWish) -> keys.KeyIssued:
        new = keys.order(self._config, wish, now_us(), new_key, lambda: secrets.token_hex(6))
        with self._engine() as engine:
            _commit(engine, issuing.issue(new, by=ADMIN_TOKEN, via=Via.CLI_OFFLINE))
        return keys.issued(new)

    def revoke(self, key_id: str) -> reading.KeyLine:
        now = now_us()
        with self._engine() as engine:
            with engine.connect() as connection:
                key = reading.issued_key(self._config, connection, key_id)
            if key.revoked_us is None:
                _commit(engine, keys.revocation(key, now, by=ADMIN_TOKEN, via=Via.CLI_OFFLINE))
        return keys.revoked(key, now)

    @contextmanager
    def _engine(self) -> Generator[Engine]:
        engine = open_engine(self._config.store.get_secret_value())
        try:
            upgrade(engine)
            yield engine
        finally:
            engine.dispose()


def _commit(engine: Engine, job: Job) -> None:
    # What goes wrong is raised and said once; the writer's log would say it again on standard output.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(_write(engine, job))


async def _write(engine: Engine, job: Job) -> None:
    writer = Writer(engine, uuid7(now_us()), now_us)
    await writer.start()
    try:
        await writer.submit(job)
    finally:
        await writer.stop()
