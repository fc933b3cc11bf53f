"""The in-file tests of a policy, as models: a call, what came before it, and the verdict it must get."""

from __future__ import annotations

from pydantic import Field, JsonValue

from llm_proxy.policy.vocabulary import Decision, Label, Name, Strict, ToolGlob


class CaseAgent(Strict):
    id: str = "test-agent"
    team: str = ""
    role: str = ""
    owner: str = ""
    scopes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    tools: tuple[ToolGlob, ...] = ("*",)


class CaseUser(Strict):
    id: str = ""
    role: str = ""
    clearance: Label | None = None
    verified: bool = False
    said: str = ""
    """What the user wrote in this run."""


class CaseRun(Strict):
    """Overrides of what `history` leads to."""

    sensitivity: Label | None = None
    untrusted: bool | None = None
    role_at_start: str | None = None
    age_s: float = Field(default=0, ge=0)
    depth: int = Field(default=0, ge=0)
    calls: int | None = Field(default=None, ge=0)
    writes: int | None = Field(default=None, ge=0)
    irreversible: int | None = Field(default=None, ge=0)
    denials: int = Field(default=0, ge=0)
    events: tuple[Name, ...] = ()
    labels: tuple[str, ...] = ()
    day_calls: int = Field(default=0, ge=0)
    day_writes: int = Field(default=0, ge=0)
    sums: dict[str, float] = Field(default_factory=dict)


class CaseCall(Strict):
    tool: str
    args: dict[str, JsonValue] = Field(default_factory=dict)


class Expectation(Strict):
    decision: Decision
    rule: str | None = None


class Case(Strict):
    """One in-file test: a call, what came before it, and the verdict it must get."""

    name: str = Field(min_length=1)
    agent: CaseAgent = CaseAgent()
    user: CaseUser = CaseUser()
    run: CaseRun = CaseRun()
    env: str = "test"
    history: tuple[str | CaseCall, ...] = ()
    """Calls that were allowed and completed, oldest first."""
    siblings: tuple[CaseCall, ...] = ()
    """Other calls of the same reply, before this one."""
    call: CaseCall
    expect: Expectation
