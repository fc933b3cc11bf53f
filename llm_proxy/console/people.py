"""Whom the configuration lets sign in: by token, or by what an OpenID provider says of them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from llm_proxy.admin.door import Operator, operators
from llm_proxy.config import Config
from llm_proxy.config.choices import Role
from llm_proxy.config.oidc import OidcConfig
from llm_proxy.config.schema import OperatorConfig
from llm_proxy.config.shapes import is_name
from llm_proxy.config.values import ADMIN_TOKEN
from llm_proxy.identity.claims import Claims, claim

MOST_GROUPS = 2_000


@dataclass(frozen=True, slots=True)
class Credential:
    """An operator and what they sign in with; `digest` changes when that does, or what it makes of them."""

    operator: Operator
    digest: str
    """SHA-256, hex."""
    groups: tuple[str, ...] = ()
    """Those of the provider's that give the operator's roles; empty for people of `operators`."""


class Unwelcome(Exception):
    """The provider's word is good, and makes nobody an operator. The text says what to do."""


class People:
    """Everybody who may sign in, as the configuration has it."""

    def __init__(self, config: Config) -> None:
        self._tokens = tuple(
            (digest, Credential(operator, digest.sha256)) for digest, operator in operators(config)
        )
        self._oidc = config.oidc
        self._listed = {(entry.oidc or entry.id): entry for entry in config.operators}
        self._ids = {entry.id: entry for entry in config.operators}

    @property
    def have_tokens(self) -> bool:
        return bool(self._tokens)

    def by_token(self, token: str) -> Credential | None:
        """Compares with every operator's, each in constant time."""
        found = [credential for digest, credential in self._tokens if digest.matches(token)]
        return found[0] if found else None

    def by_claims(self, claims: Claims) -> Credential:
        """Raises `Unwelcome`. What `operators` says of a person is all that counts for them."""
        value = _who(claims, self._oidc.claims.operator)
        entry = self._listed.get(value)
        if entry is not None:
            found = self._of_listed(entry)
        elif value in self._ids or value == ADMIN_TOKEN or not is_name(value):
            found = None  # an id that is somebody else's, or can be nobody's
        else:
            found = self._of_groups(value, _groups(claims, self._oidc.claims.groups))
        if found is None or not found.operator.roles:
            raise Unwelcome(
                f"{value[:200]} has no role here: an admin lists this name under operators in proxy.yaml, "
                "or one of your groups under oidc.roles."
            )
        return found

    def still(self, operator_id: str, digest: str, groups: Sequence[str]) -> Credential | None:
        """The credential that a session was opened with, if it still is one."""
        same = [one for one in self._of(operator_id, groups) if hmac.compare_digest(one.digest, digest)]
        return same[0] if same else None

    def _of(self, operator_id: str, groups: Sequence[str]) -> Iterable[Credential]:
        yield from (one for _, one in self._tokens if one.operator.id == operator_id)
        entry = self._ids.get(operator_id)
        if not self._oidc.on:
            return
        if entry is not None:
            yield self._of_listed(entry)
        elif operator_id != ADMIN_TOKEN and operator_id not in self._listed:
            yield self._of_groups(operator_id, groups)

    def _of_listed(self, entry: OperatorConfig) -> Credential:
        operator = Operator(entry.id, frozenset(entry.roles))
        return Credential(operator, _digest(self._oidc, operator, entry.oidc or entry.id))

    def _of_groups(self, id_: str, groups: Iterable[str]) -> Credential:
        mapped = tuple(sorted(self._oidc.roles.keys() & set(groups)))
        operator = Operator(id_, frozenset[Role]().union(*(self._oidc.roles[group] for group in mapped)))
        return Credential(operator, _digest(self._oidc, operator, id_, mapped), mapped)


def needs_more(claims: Claims, wish: OidcConfig) -> bool:
    """Whether a claim is missing that the provider may tell in another place."""
    names = [wish.claims.operator, *([wish.claims.groups] if wish.roles else [])]
    return any(claim(claims, name) is None for name in names)


def _who(claims: Claims, path: str) -> str:
    value = claim(claims, path)
    if not isinstance(value, str) or not 0 < len(value) <= 512 or not value.isprintable():
        raise Unwelcome(f"The provider doesn't say who you are: its claim {path} is missing or no text.")
    if path == "email" and claims.get("email_verified", True) is not True:
        raise Unwelcome(f"The provider says that the address {value} isn't verified: verify it there first.")
    return value


def _groups(claims: Claims, path: str) -> set[str]:
    """A list of text; of one group the text alone."""
    told = claim(claims, path)
    listed = cast("list[object]", told) if isinstance(told, list) else [told]
    return {one for one in listed[:MOST_GROUPS] if isinstance(one, str)}


def _digest(wish: OidcConfig, operator: Operator, value: str, groups: tuple[str, ...] = ()) -> str:
    """Of everything that makes that person this operator."""
    told = (wish.issuer, wish.client_id, wish.claims.operator, wish.claims.groups, value, groups)
    whole = json.dumps(["oidc", *told, operator.id, sorted(operator.roles)])
    return hashlib.sha256(whole.encode()).hexdigest()
