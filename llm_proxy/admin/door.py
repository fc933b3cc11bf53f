"""Who may use `/admin`: the admin token and operators' tokens, each with its roles; no agent's key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from llm_proxy.config import Config
from llm_proxy.config.choices import Role
from llm_proxy.config.credentials import KeyDigest
from llm_proxy.config.values import ADMIN_TOKEN
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.headers import Headers, credential
from llm_proxy.identity.keyring import hash_key

log = structlog.get_logger("llm_proxy.admin")

READERS = frozenset({Role.ADMIN, Role.INVESTIGATOR, Role.SPEND_READER})
"""May see listings, which hold no content."""
CONTENT_READERS = frozenset({Role.ADMIN, Role.INVESTIGATOR})
ADMINS = frozenset({Role.ADMIN})
APPROVERS = frozenset({Role.ADMIN, Role.APPROVER})
"""May decide approvals that name them, and say that a person looked at a run."""
APPROVAL_READERS = APPROVERS | {Role.INVESTIGATOR}
"""May see what waits for a person, with its content."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A person, or the admin token, at the door."""

    id: str
    roles: frozenset[Role]


def operators(config: Config) -> tuple[tuple[KeyDigest, Operator], ...]:
    """Everybody who has a token, the admin token last."""
    found = tuple(
        (operator.token, Operator(operator.id, frozenset(operator.roles)))
        for operator in config.operators
        if operator.token is not None
    )
    admin = config.server.admin_token
    return found if admin is None else (*found, (admin, Operator(ADMIN_TOKEN, ADMINS)))


class Door:
    """Lets operators in by token. Every token of the config is compared, each in constant time."""

    def __init__(self, config: Config, is_issued: Callable[[str], bool]) -> None:
        """`is_issued` tells whether a SHA-256 is that of an issued key; it may block."""
        self._is_issued = is_issued
        self._agents = tuple(key for agent in config.agents.values() for key in agent.keys)
        self._operators = operators(config)

    async def admit(self, headers: Headers, roles: frozenset[Role]) -> Operator:
        """The operator, who has at least one of `roles`.

        Raises `ProxyError`: forbidden_role where nobody may enter, for agents' keys and without a role that
        is asked for; invalid_credential without a token that is known.
        """
        if not self._operators:
            raise _forbidden(
                "No operator may enter here: set server.admin_token or an operator's token in proxy.yaml."
            )
        token = credential(headers)
        if token is None:
            raise _unknown("No token was sent: send an operator's, as `Authorization: Bearer TOKEN`.")
        operator = self._known(token)
        if operator is None:
            raise await self._stranger(token)
        require(operator, roles)
        return operator

    def _known(self, token: str) -> Operator | None:
        found = [operator for digest, operator in self._operators if digest.matches(token)]
        return found[0] if found else None

    async def _stranger(self, token: str) -> ProxyError:
        configured = any(key.matches(token) for key in self._agents)
        if configured or await asyncio.to_thread(self._is_issued, hash_key(token)):
            return _forbidden("An agent's key opens nothing here: send an operator's token.")
        log.warning("a token that nobody has was shown at /admin")
        return _unknown("The token is not known here: send an operator's or the admin's.")


def require(operator: Operator, roles: frozenset[Role]) -> None:
    """Raises `ProxyError(forbidden_role)` where the operator has none of them."""
    if not operator.roles & roles:
        names = ", ".join(sorted(roles))
        raise _forbidden(f"{operator.id} lacks a role that this takes: one of {names}.")


def _forbidden(message: str) -> ProxyError:
    return ProxyError(Kind.FORBIDDEN_ROLE, message, retryable=False)


def _unknown(message: str) -> ProxyError:
    return ProxyError(Kind.INVALID_CREDENTIAL, message, retryable=False)
