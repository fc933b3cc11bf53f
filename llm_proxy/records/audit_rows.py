"""Rows that stand beside the evidence to find things in it (see `audit_tables`)."""

from __future__ import annotations

from typing import NamedTuple


class CheckpointRow(NamedTuple):
    """Where a signed checkpoint stands."""

    writer: str
    seq: int
    at_us: int


class LegalHoldRow(NamedTuple):
    """A run whose content retention must leave alone, as long as `released_us` is None."""

    agent_id: str
    run_id: str
    by: str
    reason: str
    placed_us: int
    released_us: int | None = None


class PurgedRow(NamedTuple):
    """A day whose content is being deleted, or was where `ended_us` is set."""

    epoch: int
    at_us: int
    ended_us: int | None = None
    blobs: int = 0
    bytes: int = 0
    kept: int = 0


class PrefixRow(NamedTuple):
    """What a conversation held when a call of it ended, and under which instructions."""

    agent_id: str
    key_id: str
    hash: bytes
    call_id: str
    run_id: str
    system: bytes
    at_us: int


class TraceRow(NamedTuple):
    """A call of this run came in this trace of its caller's."""

    trace_id: bytes
    agent_id: str
    run_id: str
    at_us: int
