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


class PrefixRow(NamedTuple):
    """What a conversation held when a call of it ended; the newest call that ended so stands."""

    agent_id: str
    key_id: str
    hash: bytes
    run_id: str
    call_id: str
    at_us: int
