"""Every key that opens the door, by its SHA-256; no key is kept in the clear."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.caller import Agent, Caller

PREFIX = "lp-"
MOST_REMEMBERED = 20_000
"""Issued keys that a process has at hand; any other is looked up as it is shown."""


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
    """Config keys, fixed at load, and those issued ones that were shown of late. The store has them all."""

    def __init__(self, agents: Mapping[str, Agent], fixed: Iterable[Credential]) -> None:
        self._agents = agents
        self._fixed = {c.sha256: c for c in fixed}
        self._issued: OrderedDict[str, Credential] = OrderedDict()
        self._hashes: dict[str, str] = {}

    def remember(self, found: Iterable[Credential]) -> None:
        """Issued keys as the store has them."""
        for credential in found:
            self._issued[credential.sha256] = credential
            self._hashes[credential.key_id] = credential.sha256
        while len(self._issued) > MOST_REMEMBERED:
            _, oldest = self._issued.popitem(last=False)
            del self._hashes[oldest.key_id]

    def change(self, key_id: str, expires_us: int | None, revoked_us: int | None) -> None:
        """A key came to an end, or will."""
        sha256 = self._hashes.get(key_id)
        if sha256 is not None:
            before = self._issued[sha256]
            self._issued[sha256] = replace(before, expires_us=expires_us, revoked_us=revoked_us)

    def forget(self) -> None:
        """Of the issued keys each is looked up anew when it's shown next."""
        self._issued.clear()
        self._hashes.clear()

    def find(self, key: str, now_us: int) -> Caller | None:
        """The caller behind `key`; None where no key is known by that hash.

        Raises `ProxyError(invalid_credential)` for a key that was revoked, has expired or belongs to
        an agent that the config no longer names.
        """
        digest = hash_key(key)
        found = self._fixed.get(digest) or self._shown(digest)
        if found is None or not hmac.compare_digest(found.sha256, digest):
            return None
        if found.revoked_us is not None:
            raise revoked(found.key_id)
        if found.expires_us is not None and found.expires_us <= now_us:
            raise expired(found.key_id)
        agent = self._agents.get(found.agent_id)
        if agent is None:
            raise _invalid(f"Key {found.key_id} belongs to an agent that is no longer in the configuration.")
        return Caller(agent, found.key_id, found.run_id, expires_us=found.expires_us)

    def _shown(self, digest: str) -> Credential | None:
        found = self._issued.get(digest)
        if found is not None:
            self._issued.move_to_end(digest)
        return found


def revoked(key_id: str) -> ProxyError:
    return _invalid(f"Key {key_id} was revoked. Ask an operator for a new one.")


def expired(key_id: str) -> ProxyError:
    return _invalid(f"Key {key_id} has expired. Ask an operator for a new one.")


def _invalid(message: str) -> ProxyError:
    return ProxyError(Kind.INVALID_CREDENTIAL, message, retryable=False)
