"""Structured logs: JSON lines on standard error, never with content or secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, cast

import structlog

about: ContextVar[Callable[[], Mapping[str, str]] | None] = ContextVar("about", default=None)
"""Gives the ids of the call at hand. Asked only when a line is written, so that a call pays for no line."""


class _Unplanned(logging.Filter):
    """Keeps out what the server reports of an exception whose attribute `planned` is true."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and getattr(record.exc_info[1], "planned", False))


def _with_ids(_logger: Any, _method: str, event: Any) -> Any:
    """Adds the ids of the call at hand, where the line has none of its own."""
    ids = about.get()
    if ids is not None:
        for key, value in ids().items():
            if value:
                event.setdefault(key, value)
    return event


def _bare_exception(_logger: Any, _method: str, event: Any) -> Any:
    """An exception as its type and where it was raised: its message may quote what was said."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error: Any = cast("tuple[Any, ...]", info)[1] if isinstance(info, tuple) else info
    if not isinstance(error, BaseException):
        return event
    event["exception"] = type(error).__name__
    event["at"] = _places(error)
    return event


_MOST_PLACES = 12
_MOST_CAUSES = 4


def _places(error: BaseException) -> list[str]:
    """`file:line function` of the frames that it came through, the innermost last, causes first."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and len(chain) < _MOST_CAUSES:
        chain.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    told: list[str] = []
    for one in reversed(chain):
        frames = one.__traceback__
        through: list[str] = []
        while frames is not None:
            code = frames.tb_frame.f_code
            through.append(f"{code.co_filename}:{frames.tb_lineno} {code.co_name}")
            frames = frames.tb_next
        told += [*through[-_MOST_PLACES:], type(one).__name__]
        if isinstance(one, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", one).exceptions
            told += [place for inner in group[:_MOST_CAUSES] for place in _places(inner)]
    return told


def set_up_logs(level: str = "info") -> None:
    """Sends structlog and the standard library's loggers through one JSON renderer."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_ids,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _bare_exception,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
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
    root.setLevel(level.upper())
    logging.getLogger("alembic").setLevel(logging.WARNING)
    server = logging.getLogger("uvicorn.error")
    server.setLevel(level.upper())
    server.addFilter(_Unplanned())
