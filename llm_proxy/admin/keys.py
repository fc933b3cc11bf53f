"""Keys on an operator's word: what is asked for, checked against the config, and what is answered."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_proxy import wiring
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.reading import KeyLine, key_line, unknown_agent
from llm_proxy.archive.listings import KeyView
from llm_proxy.config import Config
from llm_proxy.errors import ProxyError
from llm_proxy.identity.headers import checked_id
from llm_proxy.identity.issuing import KeyEvent, NewKey, Via, key_id, parse_ttl, revoke
from llm_proxy.records.batch import Job
from llm_proxy.records.times import iso


class KeyWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key for an agent. `ttl` is `90s`, `15m`, `1h` or `7d`, none for ever; `run_id` binds it to a run."""

    agent_id: str
    ttl: str | None = None
    run_id: str | None = None


class KeyRotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new key for an agent; its other issued keys are good for `overlap`. Times as in `KeyWish`."""

    agent_id: str
    overlap: str = "1h"
    ttl: str | None = None


class KeyIssued(KeyLine, frozen=True, kw_only=True):
    key: str
    """The key itself. Only its hash is stored, so this is the one time it is shown."""


class KeyRotated(KeyIssued, frozen=True, kw_only=True):
    others_expire_us: int
    """When the agent's other issued keys end, where they don't before."""
    others_expire_at: str
    unchanged: tuple[str, ...]
    """The agent's keys that stand in the config, and stay good until they're taken out of it."""


def order(
    config: Config, wish: KeyWish, now_us: int, new_key: Callable[[], str], random_hex: Callable[[], str]
) -> NewKey:
    """The key to issue. Raises `NotFound` for an unknown agent, `Unclear` for a wish that can't be met."""
    if wish.agent_id not in config.agents:
        raise unknown_agent(wish.agent_id, config.agents)
    try:
        run_id = checked_id(wish.run_id or "", "run_id")
        ttl_us = parse_ttl(wish.ttl) if wish.ttl is not None else None
    except (ProxyError, ValueError) as error:
        raise Unclear(error.message if isinstance(error, ProxyError) else f"ttl: {error}") from None
    return NewKey(
        key=new_key(),
        id=key_id(random_hex()),
        agent_id=wish.agent_id,
        run_id=run_id,
        created_us=now_us,
        expires_us=None if ttl_us is None else now_us + ttl_us,
    )


def issued(new: NewKey) -> KeyIssued:
    view = KeyView(
        id=new.id,
        agent_id=new.agent_id,
        run_id=new.run_id,
        created_us=new.created_us,
        expires_us=new.expires_us,
        revoked_us=None,
    )
    return KeyIssued(**msgspec.structs.asdict(key_line(view, new.created_us)), key=new.key)


def overlap_end(wish: KeyRotation, now_us: int) -> int:
    """When the other keys end (Unix µs). Raises `Unclear`."""
    try:
        return now_us + (0 if wish.overlap.strip() in ("0", "0s") else parse_ttl(wish.overlap))
    except ValueError as error:
        raise Unclear(f"overlap: {error}") from None


def rotated(config: Config, new: NewKey, others_expire_us: int) -> KeyRotated:
    fixed = tuple([key.key_id for key in wiring.credentials(config) if key.agent_id == new.agent_id])
    return KeyRotated(
        **msgspec.structs.asdict(issued(new)),
        others_expire_us=others_expire_us,
        others_expire_at=iso(others_expire_us),
        unchanged=fixed,
    )


def revocation(key: KeyView, now_us: int, *, by: str, via: Via) -> Job:
    """The job that revokes `key`, which was not revoked before."""
    event = KeyEvent(
        key_id=key.id, agent_id=key.agent_id, run_id=key.run_id, expires_us=key.expires_us, by=by, via=via
    )
    return revoke(event, now_us)


def revoked(key: KeyView, at_us: int) -> KeyLine:
    """`key` as it stands once revoked; one that was revoked before stays as it was."""
    when = at_us if key.revoked_us is None else key.revoked_us
    return key_line(msgspec.structs.replace(key, revoked_us=when), at_us)
