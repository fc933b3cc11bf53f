"""Issuing, rotating and revoking agents' keys: pure, from a wish to the job that the writer commits."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from llm_proxy.identity.keyring import hash_key
from llm_proxy.records.batch import Found, Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, KeyRevoked, KeyRow, OthersExpire, RecordKind

LONGEST_TTL_US = 3650 * 86_400 * 1_000_000
_TTL = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Via(StrEnum):
    """By which door a change came in, as the record says it."""

    ADMIN = "admin"
    CLI_OFFLINE = "cli-offline"
    RUNS = "runs"
    """By an agent, through `/v1/runs`."""
    POLICY = "policy"
    """By the policy in force: too many calls were denied."""
    LINK = "link"
    """By the one-time link of an event."""
    CONSOLE = "console"


class KeyEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `key.issued` and `key.revoked`. Never holds the key or its hash."""

    key_id: str
    agent_id: str
    run_id: str
    expires_us: int | None
    by: str
    """The operator's id, or `admin_token`; of a run token the key that opened the run."""
    via: Via


class KeyRotated(msgspec.Struct, frozen=True, kw_only=True):
    """The body of `key.changed`: since `key_id` was issued, every other key of the agent has an end."""

    key_id: str
    agent_id: str
    others_expire_us: int
    by: str
    via: Via


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be issued. `key` is the secret itself, for its owner's eyes only, once."""

    key: str = field(repr=False)
    id: str
    agent_id: str
    run_id: str
    created_us: int
    expires_us: int | None


_encode = msgspec.json.Encoder().encode


def key_id(random_hex: str) -> str:
    """A key's public name, from 12 random hex digits."""
    return f"key_{random_hex}"


def parse_ttl(text: str) -> int:
    """Microseconds of `90s`, `15m`, `1h` or `7d`. Raises ValueError for anything else and past ten years."""
    match = _TTL.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:40]!r} is no duration: write it as 90s, 15m, 1h or 7d")
    us = int(match[1]) * _SECONDS[match[2]] * 1_000_000
    if us > LONGEST_TTL_US:
        raise ValueError(f"{text[:40]!r} is over ten years: leave it out for a key that never expires")
    return us


def issue(new: NewKey, *, by: str, via: Via) -> Job:
    """The job that makes `new` valid and records who issued it; its value is None."""
    record, row = issued(new, by, via)
    return _job(Evidence(records=(record,), keys=(row,)))


def rotate(new: NewKey, others_expire_us: int, *, by: str, via: Via) -> Job:
    """Issues `new`, and ends the agent's other issued keys at `others_expire_us`, those of its runs too.

    Which keys these are is decided by the store as it commits. The job's value is None.
    """
    record, row = issued(new, by, via)
    event = KeyRotated(
        key_id=new.id, agent_id=new.agent_id, others_expire_us=others_expire_us, by=by, via=via
    )
    changed = Draft(RecordKind.KEY_CHANGED, new.created_us, None, None, new.agent_id, _encode(event))
    others = OthersExpire(others_expire_us, new.created_us, new.agent_id, new.id)
    return _job(Evidence(records=(record, changed), keys=(row,), others_expire=(others,)))


def revoke(event: KeyEvent, now_us: int) -> Job:
    """The job that ends a key at `now_us` and records who did; its value is None."""
    record = _draft(RecordKind.KEY_REVOKED, now_us, event)
    return _job(Evidence(records=(record,), revoked=(KeyRevoked(now_us, now_us, event.key_id),)))


def issued(new: NewKey, by: str, via: Via) -> tuple[Draft, KeyRow]:
    """The record of a new key, and its row."""
    event = KeyEvent(
        key_id=new.id,
        agent_id=new.agent_id,
        run_id=new.run_id,
        expires_us=new.expires_us,
        by=by,
        via=via,
    )
    row = KeyRow(new.id, new.agent_id, hash_key(new.key), new.run_id, new.created_us, new.expires_us)
    return _draft(RecordKind.KEY_ISSUED, new.created_us, event), row


def _draft(kind: RecordKind, at_us: int, event: KeyEvent) -> Draft:
    return Draft(kind, at_us, None, event.run_id or None, event.agent_id, _encode(event))


def _job(evidence: Evidence) -> Job:
    def then(_found: Found) -> Wrote:
        return Wrote(None, evidence)

    return Job(then)
