"""Whose tokens stand for agents and users, beside the keys that the config and the store hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Self, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, model_validator

from llm_proxy.config.places import ExistingFile, is_loopback, place_of
from llm_proxy.config.shapes import EntryName, Float, Items, Section, Table, Text
from llm_proxy.identity.jwks import DEFAULT_ALGORITHMS, Algorithm, read_key_file

_LONGEST = 512
_TRUST_DOMAIN = re.compile(r"spiffe://[a-z0-9._-]{1,255}")


def _plain(text: str) -> str:
    if not text or text != text.strip() or len(text) > _LONGEST or not text.isprintable():
        raise ValueError(f"must be 1 to {_LONGEST} printable characters, without blanks around them")
    return text


def _issuer(name: str) -> str:
    if name.startswith("spiffe:") and not _TRUST_DOMAIN.fullmatch(name):
        raise ValueError(
            "must be the trust domain alone, as in spiffe://prod.example: leave out path and slash"
        )
    return _plain(name)


def _audiences(value: object) -> object:
    """One audience may stand without brackets."""
    listed = cast("list[object]", value) if isinstance(value, list | tuple) else [value]
    if not listed:
        raise ValueError("is empty: name the audience (aud) that your issuer puts into tokens for this proxy")
    return listed


def _key_set(value: object, info: ValidationInfo) -> str | Path:
    if isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text: put it in quotes")  # noqa: TRY004 (pydantic reports ValueError)
    return _key_set_file(value, info) if value.startswith("file:") else _key_set_url(value)


def _key_set_file(text: str, info: ValidationInfo) -> Path:
    path = place_of(text.removeprefix("file:"), info)
    try:
        keys = read_key_file(path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ValueError(f"names the file {path}, which can't be read: {why}") from error
    except ValueError as error:
        raise ValueError(f"names the file {path}, which {error}") from error
    if not keys.keys:
        raise ValueError(
            f"names the file {path}, which holds no public key that can check signatures: RSA of 2048 to "
            "8192 bits, EC on P-256, P-384 or P-521, or Ed25519, without its private part"
        )
    return path


def _key_set_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, usable = parts.hostname or "", parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValueError("is not a valid address: write https://host/path or file:PATH") from error
    if parts.scheme not in ("http", "https") or not host or not usable or not url.isprintable() or " " in url:
        raise ValueError("must be an https:// address or file:PATH")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("must be https: over http anyone on the way could put keys in its place")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("must hold no user, password or #fragment: jwks_token is for what needs a token")
    return url


def _token_file(value: object, info: ValidationInfo) -> Path | None:
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str) or not value.startswith("file:"):
        raise ValueError("must be file:PATH: such tokens are replaced while the proxy runs")
    path = place_of(value.removeprefix("file:"), info)
    if not path.is_file():
        raise ValueError(f"names {path}, which is no file: create it, or correct the path")
    return path


def _not_shared(name: object) -> object:
    if isinstance(name, str) and (name.upper().startswith("HS") or name.lower() == "none"):
        raise ValueError("is never taken: who can check such a token could also have made it")
    return name


def _at_least_one(names: tuple[Algorithm, ...]) -> tuple[Algorithm, ...]:
    if not names:
        raise ValueError("is empty: no token could be taken; leave it out for the usual ones")
    return names


ClaimPath = Annotated[Text, AfterValidator(_plain)]
TakenAlgorithm = Annotated[Algorithm, BeforeValidator(_not_shared)]


class ClaimsConfig(Section):
    """Which claims say who calls: a claim's name, or its path with dots between."""

    agent: ClaimPath = "sub"
    user: ClaimPath | None = None
    role: ClaimPath | None = None
    clearance: ClaimPath | None = None

    @model_validator(mode="after")
    def _has_a_user(self) -> Self:
        if self.user is None and (self.role or self.clearance):
            raise ValueError(
                "role and clearance are the user's: name the claim that says who that is as user"
            )
        return self


class IssuerConfig(Section):
    """An issuer of JWTs: OIDC, a SPIFFE trust domain, a Kubernetes cluster."""

    issuer: Annotated[Text, AfterValidator(_issuer)]
    """As `iss` has it, to the letter."""
    jwks: Annotated[str | Path, PlainValidator(_key_set)]
    """The key set's URL (https, or http on this host), or `file:PATH`."""
    jwks_ca: ExistingFile = None
    jwks_token: Annotated[Path | None, PlainValidator(_token_file)] = None
    audience: Annotated[Items[Annotated[Text, AfterValidator(_plain)]], BeforeValidator(_audiences)]
    claims: ClaimsConfig = ClaimsConfig()
    agents: Table[EntryName, Text] = Field(default_factory=dict[str, str])
    """From the agent claim's values, which may be globs, to agents; empty where they are the agents' ids."""
    algorithms: Annotated[Items[TakenAlgorithm], AfterValidator(_at_least_one)] = DEFAULT_ALGORITHMS
    leeway_s: Annotated[Float, Field(ge=0, le=300)] = 30
    user_required: bool = False

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.user_required and self.claims.user is None:
            raise ValueError("has user_required and no claims.user: name the claim that says who the user is")
        if isinstance(self.jwks, Path) and (self.jwks_ca or self.jwks_token):
            raise ValueError(
                "reads its keys from a file: leave out jwks_ca and jwks_token, which are for addresses"
            )
        if isinstance(self.jwks, str) and self.jwks.startswith("http:") and self.jwks_ca:
            raise ValueError("reads its keys over http: leave out jwks_ca, or write https")
        return self


class IdentityConfig(Section):
    issuers: Items[IssuerConfig] = ()
