"""One turn of retention from the command line, where no proxy runs."""

from __future__ import annotations

import asyncio
import logging

import structlog
from sqlalchemy import Engine

from llm_proxy import wiring
from llm_proxy.admin.retention import busy, stuck
from llm_proxy.config import Config
from llm_proxy.records.ids import now_us, uuid7
from llm_proxy.records.writer import Writer
from llm_proxy.retention.exporting import ExportFailed
from llm_proxy.retention.held import TooManyHeld
from llm_proxy.retention.keeper import Busy, DayDone, Retention


def turn(config: Config, engine: Engine, by: str) -> list[DayDone]:
    """What came of each day. Raises `Conflict`, and what the database raises."""
    # What goes wrong is raised and said once; the log would say it again on standard output.
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        return asyncio.run(_turn(config, engine, by))
    except Busy:
        raise busy() from None
    except (ExportFailed, TooManyHeld) as error:
        raise stuck(error) from None
    finally:
        structlog.configure(**before)


async def _turn(config: Config, engine: Engine, by: str) -> list[DayDone]:
    writer = Writer(engine, uuid7(now_us()), now_us)
    await writer.start()
    try:
        return await Retention(engine, writer, now_us, wiring.retention(config)).turn(by)
    finally:
        await writer.stop()
