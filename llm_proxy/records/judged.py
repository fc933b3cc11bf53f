"""What verdicts rested on, as it was at that moment: the part of it that the store doesn't keep otherwise."""

from __future__ import annotations

import msgspec


class JudgedAgent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The agent as it was configured."""

    team: str = ""
    role: str = ""
    owner: str = ""
    scopes: dict[str, tuple[str, ...]] = {}
    tools: tuple[str, ...] = ("*",)


class JudgedUser(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: str = ""
    role: str = ""
    clearance: str = ""
    verified: bool = False


class Judged(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of one reply's verdicts. Times are Unix µs; the run's history is in `state_tool_calls`."""

    now_us: int
    """The moment that the conditions saw."""
    sensitivity: int = 0
    untrusted: bool = False
    labels: tuple[str, ...] = ()
    calls: int = 0
    writes: int = 0
    irreversible: int = 0
    denials: int = 0
    started_us: int = 0
    role_at_start: str = ""
    depth: int = 0
    events: dict[str, int] = {}
    counters: dict[str, int] = {}
    """What each cap by day and each sum had used before: calls and writes, or millionths of a sum."""
    env: str = ""
    user: JudgedUser = JudgedUser()
    agent: JudgedAgent = JudgedAgent()
    identity_from_user: tuple[bool, ...] = ()
    """By call; empty where no rule looks at it."""
