"""Structured logs: JSON lines on standard error, never with content or secrets."""

from __future__ import annotations

import logging
import sys

import structlog


class _Unplanned(logging.Filter):
    """Keeps out what the server reports of an exception whose attribute `planned` is true."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and getattr(record.exc_info[1], "planned", False))


def set_up_logs() -> None:
    """Sends structlog and the standard library's loggers through one JSON renderer."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(), foreign_pre_chain=[*shared]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    server = logging.getLogger("uvicorn.error")
    server.setLevel(logging.INFO)
    server.addFilter(_Unplanned())
