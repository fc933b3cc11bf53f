"""Commits from the command line: a short-lived writer, with a chain of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy import wiring
from llm_proxy.cli.output import stop
from llm_proxy.cli.store import place, reason
from llm_proxy.config import Config
from llm_proxy.errors import ProxyError
from llm_proxy.reactions.events import Announcer
from llm_proxy.records.batch import Job
from llm_proxy.records.content_reads import Place, at_command_line, read_draft, read_job
from llm_proxy.records.engine import open_engine
from llm_proxy.records.evidence import Draft
from llm_proxy.records.ids import now_us, writer_id
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.writer import Writer


def commit(config: Config, engine: Engine, job: Job) -> Any:
    """The job's value, once it's committed. Raises what the database raises."""
    announcer = Announcer(wiring.webhooks(config))

    async def write() -> Any:
        async with short_lived(engine, announcer) as writer:
            return await writer.submit(job)

    with unlogged():
        return asyncio.run(write())


@contextmanager
def unlogged() -> Generator[None]:
    """For work whose failure is raised, and said once: the log would say it again on standard output."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@asynccontextmanager
async def short_lived(engine: Engine, announcer: Announcer | None = None) -> AsyncGenerator[Writer]:
    """A writer that runs; what it was given is committed, or failed, at the end."""
    writer = Writer(engine, writer_id(now_us()), now_us, announce=announcer)
    await writer.start()
    try:
        yield writer
    finally:
        await writer.stop()


class Readings:
    """What one command reads of content, recorded before it's shown: all of it in one chain, begun with the
    first. To be used in `with`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._writer: Writer | None = None

    def __enter__(self) -> Readings:
        return self

    def __exit__(self, *_: object) -> None:
        with unlogged(), self._runner as runner:
            runner.run(self._stack.aclose())

    def note(self, *drafts: Draft) -> None:
        """Ends the command where they can't be recorded."""
        try:
            with unlogged():
                self._runner.run(self._submit(read_job(*drafts)))
        except (SQLAlchemyError, OSError) as error:
            stop(f"{_UNSHOWN}: the store {place(self._config)} can't be written: {reason(error)}")
        except ProxyError:
            stop(f"{_UNSHOWN}: the store {place(self._config)} can't be written")

    def shown(
        self,
        what: str,
        *,
        calls: Sequence[str] = (),
        run: RunKey | None = None,
        words: str = "",
        approval: str = "",
    ) -> None:
        """The same for what the command `what` is about to print."""
        draft = read_draft(
            by=at_command_line(),
            place=Place.CLI,
            what=what,
            at_us=now_us(),
            calls=calls,
            run=run,
            words=words,
            approval=approval,
        )
        self.note(draft)

    async def _submit(self, job: Job) -> None:
        if self._writer is None:
            engine = open_engine(self._config.store.get_secret_value())
            self._stack.callback(engine.dispose)
            announcer = Announcer(wiring.webhooks(self._config))
            self._writer = await self._stack.enter_async_context(short_lived(engine, announcer))
        await self._writer.submit(job)


def note_reading(config: Config, *drafts: Draft) -> None:
    """Records that content is read, for a command that does so once."""
    with Readings(config) as readings:
        readings.note(*drafts)


def note_shown(
    config: Config,
    what: str,
    *,
    calls: Sequence[str] = (),
    run: RunKey | None = None,
    words: str = "",
    approval: str = "",
) -> None:
    """The same for what a command is about to print: `what` is its name."""
    with Readings(config) as readings:
        readings.shown(what, calls=calls, run=run, words=words, approval=approval)


_UNSHOWN = "Content is only shown where the reading of it can be recorded, and it can't be"
