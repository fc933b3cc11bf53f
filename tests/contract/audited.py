"""A store with two writers, content of each kind and checkpoints, and what verifying says of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import Connection, Engine

from llm_proxy.audit.checkpointer import Checkpointer
from llm_proxy.audit.findings import Report
from llm_proxy.audit.source import Source
from llm_proxy.audit.verify import Scope, verify
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import BlobDraft, Evidence
from llm_proxy.records.ids import uuid7
from llm_proxy.records.writer import Writer
from llm_proxy.signing import SigningKey
from tests.contract.stored import record
from tests.stores import Clock

KEY = SigningKey.new()


def said(writer: Writer, number: int, at_us: int) -> Job:
    """A record with content: addressed, fresh, and masked."""
    blobs: list[BlobDraft] = []
    text = f"what was said {number}".encode()
    writer.addresser.draft(text * 40, blobs)
    writer.addresser.fresh(text, at_us, blobs)
    writer.addresser.fresh(b"sk-secret " + text, at_us, blobs, masked=b"sk-**** " + text)
    evidence = Evidence(records=(record(number, f"call-{number}"),), blobs=tuple(blobs))
    return Job(lambda _: Wrote(None, evidence))


@asynccontextmanager
async def signing(engine: Engine, clock: Clock) -> AsyncGenerator[tuple[Writer, Checkpointer]]:
    """A writer that makes checkpoints, the last one at its end."""
    writer = Writer(engine, uuid7(clock()), clock)
    await writer.start()
    checkpointer = Checkpointer(engine, writer, KEY, clock)
    try:
        yield writer, checkpointer
    finally:
        await checkpointer.stop()
        await writer.stop()


async def fill(engine: Engine) -> None:
    """Two writers one after the other, each with some ten records and two checkpoints or more."""
    clock = Clock()
    for turn in range(2):
        async with signing(engine, clock) as (writer, checkpointer):
            for number in range(5):
                await writer.submit(said(writer, 10 * turn + number, clock()))
                if number == 2:
                    clock.now += 61_000_000
                    await checkpointer.step()


def verified(connection: Connection, limit: int = 50, **scope: object) -> Report:
    """What verifying says of the store as `connection` sees it."""
    told = Scope(**({"keys": {KEY.id: KEY.public}} | scope))  # type: ignore[arg-type]
    return verify(Source(connection), told, limit, lambda *_: None)
