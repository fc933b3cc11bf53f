"""Signed tokens (JWT) of the config's issuers: who shows one, and who is turned away and why."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.access import TokenRefused
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.identity.claims import Identity, Issuer, identify, issuer_of, unknown_agent
from llm_proxy.identity.jose import Reason, TokenFault, Unverified, read_token
from llm_proxy.identity.keyfetch import Source
from llm_proxy.identity.keysets import CantTell, KeySetKeeper

REMEMBERED = 4096
REMEMBERED_S = 60.0
"""How long a token that was checked is let in without a new check, if it doesn't end before."""
_HOST = 47
"""Characters of an issuer's host in a key id, which has room for 64."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A token that was checked against the keys of `revision`, good until `until_s` (Unix)."""

    caller: Caller
    keeper: KeySetKeeper
    revision: int
    until_s: float


class SignedTokens:
    """One worker's. Tokens are remembered by their SHA-256, so that a call costs no check of a signature."""

    def __init__(
        self,
        issuers: Iterable[tuple[Issuer, Source]],
        agents: Mapping[str, Agent],
        now_us: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._issuers = {
            issuer.name: (issuer, KeySetKeeper(issuer.name, source, clock)) for issuer, source in issuers
        }
        self._agents = agents
        self._now_us = now_us
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def looks_like_one(self, credential: str) -> bool:
        """A JWT begins with base64url's `{"`. No issued key does, and with no issuers nothing is a token."""
        return bool(self._issuers) and credential.startswith("ey")

    async def caller(self, token: str) -> Caller:
        """Raises `TokenRefused`, or `ProxyError(issuer_unavailable)` where the keys can't be had just now."""
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known and known.revision == known.keeper.revision and self._now_s() < known.until_s:
            self._known.move_to_end(digest)
            return known.caller
        self._known.pop(digest, None)
        try:
            known = await self._checked(token)
        except TokenFault as fault:
            error = ProxyError(Kind.INVALID_CREDENTIAL, fault.message, retryable=False)
            raise TokenRefused(fault.reason.value, error) from None
        self._known[digest] = known
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return known.caller

    async def keep_fresh(self) -> None:
        """Reads every issuer's keys now, and again before they age, for as long as the worker lives."""
        async with asyncio.TaskGroup() as group:
            for name, (_, keeper) in self._issuers.items():
                group.create_task(keeper.keep_fresh(), name=f"keys of {name}")

    async def _checked(self, token: str) -> _Known:
        unverified = read_token(token)
        name = issuer_of(unverified.claims)
        found = self._issuers.get(name)
        if found is None:
            raise TokenFault(
                Reason.UNKNOWN_ISSUER,
                f"No issuer here is named {name[:200]!r}. Send a token of one that identity.issuers names.",
            )
        issuer, keeper = found
        revision = await _check_signature(unverified, issuer, keeper)
        now_s = self._now_s()
        identity = identify(unverified.claims, issuer, now_s)
        caller = self._caller(identity, issuer)
        return _Known(caller, keeper, revision, min(identity.until_s, now_s + REMEMBERED_S))

    def _caller(self, identity: Identity, issuer: Issuer) -> Caller:
        agent = self._agents.get(identity.agent)
        if agent is None:
            raise unknown_agent(identity.agent)
        return Caller(
            agent=agent,
            key_id=key_id(issuer.name, identity.subject),
            user_id=identity.user,
            user_role=identity.role,
            user_clearance=identity.clearance,
            actors=identity.actors,
        )

    def _now_s(self) -> float:
        return self._now_us() / 1e6


async def _check_signature(token: Unverified, issuer: Issuer, keeper: KeySetKeeper) -> int:
    """The revision of the keys by which the signature is good. Raises `TokenFault` where it isn't."""
    if token.algorithm not in issuer.algorithms:
        raise TokenFault(
            Reason.WRONG_ALGORITHM,
            f"The token is not signed with {', '.join(sorted(issuer.algorithms))}, "
            "which are those that identity.issuers[].algorithms allows.",
        )
    try:
        keys = await keeper.find(token)
    except CantTell as cant:
        raise ProxyError(
            Kind.ISSUER_UNAVAILABLE,
            f"The keys of the issuer {issuer.name!r} can't be read just now, so that nobody can say whether "
            "the token is good. Try again.",
            retry_after_s=cant.retry_s,
        ) from None
    if not keys:
        raise TokenFault(
            Reason.UNKNOWN_KEY,
            f"The issuer {issuer.name!r} has no key of the token's kid and algorithm. Get a new token.",
        )
    if not any(key.signed(token) for key in keys):
        raise TokenFault(
            Reason.BAD_SIGNATURE,
            f"The token's signature is not that of the issuer {issuer.name!r}. Get a new token.",
        )
    return keeper.revision


def key_id(issuer: str, subject: str) -> str:
    """What names the caller in place of a key: public, the same for all of one subject's tokens."""
    digest = hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()
    return f"jwt:{_host(issuer)[:_HOST]}:{digest[:12]}"


def _host(issuer: str) -> str:
    try:
        return urlsplit(issuer).hostname or issuer
    except ValueError:
        return issuer
