"""The agent behind a credential, with what it may do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from llm_proxy.identity.names import NameSet


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as the config declares it. `models` and `tools` are exact names or globs."""

    id: str
    owner: str = ""
    team: str = ""
    role: str = ""
    models: NameSet = field(default_factory=NameSet)
    tools: tuple[str, ...] = ("*",)
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    require_run: bool = False


class Caller(msgspec.Struct, frozen=True):
    """An agent that showed one of its credentials. `run_id` is set where that is bound to one run."""

    agent: Agent
    key_id: str
    """The key's public id, or what names the token: never a secret."""
    run_id: str = ""
    user_id: str = ""
    """On whose behalf, where the credential itself says so: such a user is verified."""
    user_role: str = ""
    user_clearance: str = ""
    """What the credential says of the user; policies read it."""
    actors: tuple[str, ...] = ()
    """Who acts for the user, the one nearest to us first: RFC 8693's `act` chain."""
    expires_us: int | None = None
    """When the key ends (Unix µs); a call that is open then ends with it."""
