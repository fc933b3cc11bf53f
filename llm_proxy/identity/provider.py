"""An OpenID provider as its client sees it: its discovery document, and a code exchanged for an ID token."""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote_plus, urlencode, urlsplit

from llm_proxy.identity.fetching import Unreadable, ask
from llm_proxy.identity.jose import MAX_TOKEN
from llm_proxy.identity.jwks import KeySet
from llm_proxy.identity.keyfetch import AddressSource

WELL_KNOWN = "/.well-known/openid-configuration"
FRESH_S, RETRY_S = 300.0, 1.0
"""How long a document is used, and the least time between two looks that fail."""
_CODE = re.compile(r"[a-z_]{1,64}")


class CodeRefused(Exception):
    """The provider gives nothing for the code. `error` is its word for it (RFC 6749, 5.2)."""

    def __init__(self, error: str) -> None:
        self.error = error
        super().__init__(error)


@dataclass(frozen=True, slots=True)
class Client:
    """This proxy, as it's registered with its provider. Without a secret it's a public client."""

    issuer: str
    id: str
    secret: str | None = field(repr=False)
    redirect: str
    scopes: tuple[str, ...]
    ca: Path | None = None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a provider's discovery document says that things are."""

    authorization: str
    token: str
    keys: str
    userinfo: str | None
    posts_secret: bool
    """The secret goes into the form, since the provider takes it no other way."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a code was exchanged for. Nothing of it is checked."""

    id_token: str = field(repr=False)
    access_token: str = field(repr=False)


class Provider:
    """One worker's. `clock` is in seconds and only ever moves on."""

    def __init__(self, client: Client, clock: Callable[[], float]) -> None:
        self.client = client
        self._clock = clock
        self._looking = asyncio.Lock()
        self._endpoints: Endpoints | None = None
        self._failed: Unreadable | None = None
        self._next_at = float("-inf")

    async def endpoints(self) -> Endpoints:
        """As they are now, or were lately. Raises `Unreadable`."""
        async with self._looking:
            if self._clock() >= self._next_at:
                await self._look()
            if self._endpoints is None:
                raise self._failed or Unreadable("was not asked")
            return self._endpoints

    async def _look(self) -> None:
        self._endpoints = None
        try:
            heard = await ask(self.client.issuer.rstrip("/") + WELL_KNOWN, ca=self.client.ca)
            self._endpoints = read_endpoints(heard.good(), self.client.issuer)
        except Unreadable as error:
            self._failed = error
        self._next_at = self._clock() + (FRESH_S if self._endpoints else RETRY_S)

    async def address(self, state: str, nonce: str, challenge: str) -> str:
        """Where a person signs in (RFC 6749, 4.1.1; RFC 7636). Raises `Unreadable`."""
        asked = {
            "response_type": "code",
            "client_id": self.client.id,
            "redirect_uri": self.client.redirect,
            "scope": " ".join(self.client.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        where = (await self.endpoints()).authorization
        return f"{where}{'&' if '?' in where else '?'}{urlencode(asked)}"

    async def redeem(self, code: str, verifier: str) -> Granted:
        """Exchanges a code. Raises `CodeRefused`, or `Unreadable`."""
        endpoints = await self.endpoints()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.client.redirect,
            "code_verifier": verifier,
        }
        headers = dict[str, str]()
        if self.client.secret is None:
            form["client_id"] = self.client.id
        elif endpoints.posts_secret:
            form |= {"client_id": self.client.id, "client_secret": self.client.secret}
        else:
            pair = f"{quote_plus(self.client.id)}:{quote_plus(self.client.secret)}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        heard = await ask(endpoints.token, headers, ca=self.client.ca, form=form)
        if heard.status in (400, 401, 403):
            raise CodeRefused(_error(heard.raw))
        told = _object(heard.good(), "its token endpoint")
        return Granted(_token(told, "id_token"), _token(told, "access_token"))

    async def keys(self) -> KeySet:
        """What it signs with now. Raises `Unreadable`."""
        source = AddressSource((await self.endpoints()).keys, self.client.ca)
        return (await source.fetch()).keys

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """What it says of a person beside the ID token; nothing where it has no such place."""
        where = (await self.endpoints()).userinfo
        if where is None or not access_token:
            return {}
        heard = await ask(where, {"authorization": f"Bearer {access_token}"}, ca=self.client.ca)
        return _object(heard.good(), "its userinfo endpoint")


def read_endpoints(raw: bytes, issuer: str) -> Endpoints:
    """Of a discovery document (OpenID Connect Discovery 1.0). Raises `Unreadable`."""
    told = _object(raw, "its discovery document")
    if told.get("issuer") != issuer:
        raise Unreadable(
            "calls itself otherwise in its discovery document: write oidc.issuer as it stands there"
        )
    takes = told.get("token_endpoint_auth_methods_supported")
    ways = cast("list[object]", takes) if isinstance(takes, list) else ["client_secret_basic"]
    return Endpoints(
        authorization=_address(told, "authorization_endpoint", issuer),
        token=_address(told, "token_endpoint", issuer),
        keys=_address(told, "jwks_uri", issuer),
        userinfo=_address(told, "userinfo_endpoint", issuer) if told.get("userinfo_endpoint") else None,
        posts_secret="client_secret_post" in ways and "client_secret_basic" not in ways,
    )


def _address(told: dict[str, Any], name: str, issuer: str) -> str:
    """https, as the issuer is; an issuer of this host may keep to itself over http."""
    url = told.get(name)
    try:
        parts, own = urlsplit(url if isinstance(url, str) else ""), urlsplit(issuer)
        plain = parts.scheme == own.scheme == "http" and parts.hostname == own.hostname
        good = bool(parts.hostname) and (parts.scheme == "https" or plain) and "@" not in parts.netloc
        good = good and not parts.fragment and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not isinstance(url, str) or not good or not url.isascii() or not url.isprintable() or " " in url:
        raise Unreadable(f"names no https address as {name} in its discovery document")
    return url


def _object(raw: bytes, what: str) -> dict[str, Any]:
    try:
        told = json.loads(raw.decode())
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise Unreadable(f"gives no JSON object at {what}")
    return cast("dict[str, Any]", told)


def _token(told: dict[str, Any], name: str) -> str:
    """Empty where there is none, or nothing that may stand in a header."""
    value = told.get(name)
    if not isinstance(value, str) or len(value) > MAX_TOKEN or not value.isascii() or not value.isprintable():
        return ""
    return value


def _error(raw: bytes) -> str:
    try:
        told = _object(raw, "").get("error")
    except Unreadable:
        told = None
    return told if isinstance(told, str) and _CODE.fullmatch(told) else "no reason given"
