"""Commits one job from the command line: a short-lived writer, with a chain of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
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
from llm_proxy.records.ids import now_us, uuid7
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.writer import Writer


def commit(config: Config, engine: Engine, job: Job) -> Any:
    """The job's value, once it's committed. Raises what the database raises."""
    # What goes wrong is raised and said once; the writer's log would say it again on standard output.
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        return asyncio.run(_write(engine, job, Announcer(wiring.webhooks(config))))
    finally:
        structlog.configure(**before)


def note_reading(config: Config, *drafts: Draft) -> None:
    """Records that content is read, before it's shown; ends the command where that can't be recorded."""
    engine = open_engine(config.store.get_secret_value())
    try:
        commit(config, engine, read_job(*drafts))
    except (SQLAlchemyError, OSError) as error:
        stop(f"{_UNSHOWN}: the store {place(config)} can't be written: {reason(error)}")
    except ProxyError:
        stop(f"{_UNSHOWN}: the store {place(config)} can't be written")
    finally:
        engine.dispose()


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
    note_reading(config, draft)


_UNSHOWN = "Content is only shown where the reading of it can be recorded, and it can't be"


async def _write(engine: Engine, job: Job, announcer: Announcer) -> Any:
    """The job's value."""
    writer = Writer(engine, uuid7(now_us()), now_us, announce=announcer)
    await writer.start()
    try:
        return await writer.submit(job)
    finally:
        await writer.stop()
