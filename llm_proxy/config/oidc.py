"""Signing in to the console by OIDC: the provider, and whom its word makes an operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Self, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from llm_proxy.config.choices import Role
from llm_proxy.config.credentials import Secret
from llm_proxy.config.issuers import ClaimPath
from llm_proxy.config.places import ExistingFile, is_loopback
from llm_proxy.config.shapes import EntryName, Items, Section, Table, Text
from llm_proxy.yamlpos import Document, Issue, Yaml

_SCOPE_TAKES = frozenset(map(chr, range(0x21, 0x7F))) - {'"', "\\"}


def _provider(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, usable = parts.hostname or "", parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValueError("is not a valid address: write https://host/path") from error
    if parts.scheme not in ("http", "https") or not host or not usable or not url.isprintable() or " " in url:
        raise ValueError("must be an https:// address, to the letter as the provider's tokens have it in iss")
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("must be https: over http anyone on the way could sign in as anybody")
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ValueError("must hold no user, password, ?query or #fragment: leave them out")
    return url


def _scopes(names: tuple[str, ...]) -> tuple[str, ...]:
    if any(not name or not _SCOPE_TAKES.issuperset(name) for name in names):
        raise ValueError("must be printable and without blanks and quotes, each scope an item of its own")
    if "openid" not in names:
        raise ValueError("must hold openid: without it a provider gives no ID token")
    return names


def _not_approver(roles: tuple[Role, ...]) -> tuple[Role, ...]:
    if Role.APPROVER in roles:
        raise ValueError(
            "can't hold approver: approvals name people of operators, so list who approves there, by id"
        )
    return roles


class OidcClaimsConfig(Section):
    """Which claims of the ID token say who signs in: a claim's name, or its path with dots between."""

    operator: ClaimPath = "email"
    groups: ClaimPath = "groups"


class OidcConfig(Section):
    """Off without `issuer`."""

    issuer: Annotated[Text, AfterValidator(_provider)] | None = None
    """As `iss` has it, to the letter; `/.well-known/openid-configuration` is below it."""
    client_id: ClaimPath | None = None
    client_secret: Secret = None
    """Absent for a public client."""
    name: ClaimPath = "single sign-on"
    """What people know the provider by, on the button."""
    scopes: Annotated[Items[Text], AfterValidator(_scopes)] = ("openid", "email", "profile")
    claims: OidcClaimsConfig = OidcClaimsConfig()
    roles: Table[EntryName, Annotated[Items[Role], AfterValidator(_not_approver)]] = Field(
        default_factory=dict[str, tuple[Role, ...]]
    )
    """By group, for those whom `operators` doesn't list."""
    ca: ExistingFile = None

    @property
    def on(self) -> bool:
        return self.issuer is not None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.issuer is None and self.model_fields_set:
            raise ValueError("has no issuer: name the provider, as its tokens have it in iss")
        if self.issuer is not None and self.client_id is None:
            raise ValueError("has no client_id: register the proxy with the provider, which gives it one")
        if self.ca is not None and (self.issuer or "").startswith("http:"):
            raise ValueError("asks its issuer over http: leave out ca, or write https")
        return self


def oidc_errors(document: Document, data: Mapping[str, Yaml]) -> Iterator[Issue]:
    """What doesn't fit between `oidc`, `server` and `operators`."""
    oidc, server = _mapping(data.get("oidc")), _mapping(data.get("server"))
    on = oidc.get("issuer") is not None
    public = server.get("public_url")
    if on and public is None:
        message = "needs server.public_url: the provider sends people back to the address where they reach it"
        yield document.issue(("oidc", "issuer"), message)
    if on and isinstance(public, str) and _has_path(public):
        message = "holds a path, and the console is at /console of its host: leave the path out for oidc"
        yield document.issue(("server", "public_url"), message)
    yield from _people(document, data.get("operators"), on=on)


def _people(document: Document, operators: Yaml | None, *, on: bool) -> Iterator[Issue]:
    taken: dict[str, tuple[int, bool]] = {}
    for n, entry in enumerate(operators if isinstance(operators, list) else []):
        told = _mapping(entry)
        named = told.get("oidc") is not None
        if named and not on:
            yield document.issue(("operators", n, "oidc"), "needs oidc.issuer: nobody can sign in by it")
        value = told.get("oidc" if named else "id")
        if not isinstance(value, str):
            continue
        first, was_named = taken.setdefault(value, (n, named))
        if first != n and (named or was_named):
            message = f"{value!r} stands for operators[{first}] already: one person, one entry"
            yield document.issue(("operators", n, "oidc" if named else "id"), message)


def _has_path(url: str) -> bool:
    try:
        return urlsplit(url).path not in ("", "/")
    except ValueError:
        return False  # told already, as no address


def _mapping(value: Yaml | None) -> Mapping[str, Yaml]:
    return cast("Mapping[str, Yaml]", value) if isinstance(value, dict) else {}
