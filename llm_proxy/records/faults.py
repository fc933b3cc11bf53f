"""What an error means for the batch that met it: run it again, refuse it, or find the job at fault."""

from __future__ import annotations

from enum import Enum, auto

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from llm_proxy.records.statements import RunChanged

_RACES = frozenset({"40001", "40P01"})
"""PostgreSQL's serialization_failure and deadlock_detected: nothing was done, and the same may work now."""


class Fault(Enum):
    RACED = auto()
    """Another writer came between; the same batch can be run again."""
    DOWN = auto()
    """The store can't be written."""
    OWN = auto()
    """One of the jobs is at fault, and the others can be written without it."""


def fault_of(error: Exception) -> Fault:
    match error:
        case RunChanged():
            return Fault.RACED
        case DBAPIError() if getattr(error.orig, "sqlstate", None) in _RACES:
            return Fault.RACED
        case DataError() | IntegrityError() if not error.connection_invalidated:
            return Fault.OWN
        case DBAPIError() | PoolExhausted() | OSError():
            return Fault.DOWN
        case _:
            return Fault.OWN
