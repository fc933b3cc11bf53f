"""Every key that opens the door, by its SHA-256; no key is kept in the clear."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.caller import Agent, Caller

PREFIX = "lp-"


@dataclass(frozen=True, slots=True)
class Credential:
    """A key's hash and what it stands for. Times are Unix microseconds."""

    key_id: str
    agent_id: str
    sha256: str
    run_id: str = ""
    expires_us: int | None = None
    revoked_us: int | None = None


def hash_key(key: str) -> str:
    """Hex SHA-256. Keys are long and random, so a slow hash would protect nothing."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key() -> str:
    """A key of 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


class Keyring:
    """Config keys, fixed at load, and issued ones, replaced as the store changes."""

    def __init__(self, agents: Mapping[str, Agent], fixed: Iterable[Credential]) -> None:
        self._agents = agents
        self._fixed = {c.sha256: c for c in fixed}
        self._issued: dict[str, Credential] = {}

    def replace_issued(self, issued: Iterable[Credential]) -> None:
        self._issued = {c.sha256: c for c in issued}

    def find(self, key: str, now_us: int) -> Caller | None:
        """The caller behind `key`; None where no key is known by that hash.

        Raises `ProxyError(invalid_credential)` for a key that was revoked, has expired or belongs to
        an agent that the config no longer names.
        """
        digest = hash_key(key)
        found = self._fixed.get(digest) or self._issued.get(digest)
        if found is None or not hmac.compare_digest(found.sha256, digest):
            return None
        if found.revoked_us is not None:
            raise _invalid(f"Key {found.key_id} was revoked. Ask an operator for a new one.")
        if found.expires_us is not None and found.expires_us <= now_us:
            raise _invalid(f"Key {found.key_id} has expired. Ask an operator for a new one.")
        agent = self._agents.get(found.agent_id)
        if agent is None:
            raise _invalid(f"Key {found.key_id} belongs to an agent that is no longer in the configuration.")
        return Caller(agent, found.key_id, found.run_id)


def _invalid(message: str) -> ProxyError:
    return ProxyError(Kind.INVALID_CREDENTIAL, message, retryable=False)
