"""The policy file as typed, frozen models: every key that may stand in it, and nothing else.

What one value says alone is checked here; what needs two places of the file is checked in `crosscheck.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from llm_proxy.policy.case_schema import Case
from llm_proxy.policy.vocabulary import (
    Decision,
    Declare,
    Detector,
    Effect,
    Label,
    Mode,
    Name,
    OnDeny,
    Per,
    Replacement,
    Restriction,
    Sink,
    Strict,
    Tier,
    ToolGlob,
    Trust,
    UnknownResults,
)

__all__ = [
    "Approval",
    "Ban",
    "Caps",
    "Case",
    "Decision",
    "Declare",
    "Destination",
    "Effect",
    "Freeze",
    "Match",
    "Mode",
    "OnDeny",
    "PolicyFile",
    "Prerequisite",
    "Redaction",
    "Requirement",
    "Rule",
    "Sink",
    "Sum",
    "Tier",
    "Tool",
    "Trust",
    "UnknownResults",
]


class Header(Strict):
    id: Name
    version: int | str
    owner: str = ""
    mode: Mode = Mode.ENFORCE


class Posture(Strict):
    default: Decision = Decision.ASK
    """For a registered tool that neither a tier nor a rule spoke for."""
    fallback: Decision = Decision.DENY
    """For a tool that is not registered."""
    unknown_results: UnknownResults = UnknownResults.LABEL


class Input(Strict):
    max_args_bytes: int = Field(default=65_536, ge=2, le=1_048_576)
    max_depth: int = Field(default=16, ge=1, le=64)
    max_result_bytes: int = Field(default=1_048_576, ge=1, le=268_435_456)
    """Of one tool result's content, as it stands in the request."""


class Labels(Strict):
    sensitivity: tuple[Label, ...] = ("public", "internal", "confidential", "secret")
    """Lowest first. A label's rank is its index here."""

    @field_validator("sensitivity")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError("must name at least one label, lowest first")
        if len(set(names)) != len(names):
            raise ValueError("names a label twice")
        return names


class Destination(Strict):
    """Exactly one kind: addresses (`email_domains`), URLs (`hosts`), or paths (`path_prefixes` alone)."""

    email_domains: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ("https",)
    hosts: tuple[str, ...] = ()
    path_prefixes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_kind(self) -> Destination:
        if not (self.email_domains or self.hosts or self.path_prefixes):
            raise ValueError("needs email_domains, hosts or path_prefixes")
        if self.email_domains and (self.hosts or self.path_prefixes):
            raise ValueError("mixes email_domains with hosts or path_prefixes: make two destinations")
        if "schemes" in self.model_fields_set and not (self.hosts and self.schemes):
            raise ValueError("schemes go with hosts, and need at least one")
        return self


class Result(Strict):
    sensitivity: Label | None = None
    """None = the lowest."""
    trust: Trust = Trust.UNTRUSTED


class Tool(Strict):
    owner: str = ""
    risk: Literal["low", "medium", "high"] = "medium"
    effect: Effect
    sink: Sink = Sink.NONE
    clearance: Label | None = None
    """The highest sensitivity that may flow into it. None = the lowest."""
    tier: Tier | None = None
    roles: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Agent roles that may use it. None = any."""
    result: Result = Result()
    args: dict[str, JsonValue] | None = None
    """A JSON Schema (draft 2020-12)."""
    check: dict[str, str] = Field(default_factory=dict)
    """Argument → destination name, or `scope:NAME` for one of the agent's own scopes."""
    identity_args: tuple[str, ...] = ()
    approval: Name | None = None


class Rule(Strict):
    id: Name
    then: Decision
    when: str = Field(min_length=1, max_length=4096)
    why: str = ""
    tell_model: str = ""


class Match(Strict):
    """Calls by tool glob, by effect, or by both."""

    tool: ToolGlob | None = None
    effect: Effect | None = None

    @model_validator(mode="after")
    def _something(self) -> Match:
        if self.tool is None and self.effect is None:
            raise ValueError("needs tool or effect")
        return self


class Requirement(Strict):
    """A completed call, or an event, not longer ago than `within_s` seconds."""

    event: Name | None = None
    tool: ToolGlob | None = None
    effect: Effect | None = None
    within_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one(self) -> Requirement:
        called = self.tool is not None or self.effect is not None
        if called == (self.event is not None):
            raise ValueError("needs either an event, or a tool and/or an effect")
        return self


class Ban(Strict):
    id: Name
    after: Match
    forbid: Match
    then: Restriction = Decision.DENY
    why: str = ""
    tell_model: str = ""


class Prerequisite(Strict):
    id: Name
    before: Match
    require: Requirement
    otherwise: Restriction = Decision.DENY
    why: str = ""
    tell_model: str = ""


class RunCaps(Strict):
    calls: int | None = Field(default=None, ge=0)
    writes: int | None = Field(default=None, ge=0)
    irreversible: int | None = Field(default=None, ge=0)
    identical_calls: int | None = Field(default=None, ge=0)


class DayCaps(Strict):
    calls: int | None = Field(default=None, ge=0)
    writes: int | None = Field(default=None, ge=0)


class Sum(Strict):
    id: Name
    tool: ToolGlob
    field: Annotated[str, Field(pattern=r"^[^.]+(\.[^.]+)*$", max_length=256)]
    """An argument holding a number, dotted where it is nested."""
    per: Per
    max: float = Field(ge=0, le=9_000_000_000_000)
    then: Restriction = Decision.DENY


class Caps(Strict):
    run: RunCaps = RunCaps()
    day: DayCaps = DayCaps()
    sums: tuple[Sum, ...] = ()

    @property
    def counted(self) -> bool:
        """Whether anything is counted beyond the run's own history."""
        return bool(self.sums) or self.day != DayCaps()


class Grant(Strict):
    uses: int = Field(default=1, ge=1)
    valid_s: float = Field(default=300, gt=0)


class Approval(Strict):
    approvers: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    """Operator ids, or `group:NAME`."""
    quorum: int = Field(default=1, ge=1, le=10)
    expires_s: float = Field(default=900, gt=0)
    hold_s: float = Field(default=20, ge=0)
    grant: Grant = Grant()


class Redaction(Strict):
    id: Name
    places: tuple[Literal["tool_args", "tool_result", "record", "reply"], ...] = Field(
        alias="in", min_length=1
    )
    tool: ToolGlob = "*"
    field: Annotated[str, Field(pattern=r"^\$(\.[^.\s]+)+$", max_length=256)] | None = None
    detect: Detector | None = None
    sensitivity: Label | None = None
    """In replies: users of this clearance and above may read it."""
    replacement: Replacement = Field(alias="with")

    @model_validator(mode="after")
    def _one_way(self) -> Redaction:
        if (self.field is None) == (self.detect is None):
            raise ValueError("needs exactly one of field and detect")
        if self.replacement == "last4" and self.detect in ("email", "secret"):
            raise ValueError(f"with: last4 says too much of a {self.detect}: use token, mask or remove")
        if self.replacement == "remove" and self.detect and "tool_args" in self.places:
            raise ValueError(
                "with: remove joins what stands around a value, in arguments that were judged with it: "
                "use token, last4 or mask"
            )
        if "reply" not in self.places:
            if self.sensitivity is not None:
                raise ValueError("sensitivity is for replies: add reply to `in`, or leave it out")
        elif self.field is not None:
            if self.sensitivity is None:
                raise ValueError("a field in replies needs sensitivity: who is cleared to read it")
            if self.replacement in ("token", "last4"):
                raise ValueError("a field in replies takes mask or remove, since only its hash is kept")
        elif self.tool != "*":
            raise ValueError("a detector in replies can't be kept to a tool: leave tool out")
        return self


class FreezeOn(Strict):
    denials_per_run: int = Field(ge=1)


class Freeze(Strict):
    """`agent`: the agent is frozen, until a person thaws it. `run`: the run may call no tool, or must ask."""

    on: FreezeOn
    then: Restriction = Decision.DENY
    scope: Literal["agent", "run"] = "agent"

    @model_validator(mode="after")
    def _asking_in_a_run(self) -> Freeze:
        if self.then is Decision.ASK and self.scope == "agent":
            raise ValueError("asks for a whole agent, which can only be frozen: give it 'scope: run'")
        return self


class PolicyFile(Strict):
    """A whole policy file."""

    policy: Header
    posture: Posture = Posture()
    on_deny: OnDeny = OnDeny.REPLAN
    max_replans: int = Field(default=2, ge=0, le=5)
    """How often one call may have its model asked again."""
    declare: Declare = Declare.FILTER
    input: Input = Input()
    labels: Labels = Labels()
    destinations: dict[Name, Destination] = Field(default_factory=dict)
    tools: dict[str, Tool] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    sequence: tuple[Ban | Prerequisite, ...] = ()
    caps: Caps = Caps()
    approvals: dict[Name, Approval] = Field(default_factory=dict)
    redact: tuple[Redaction, ...] = ()
    freeze: Freeze | None = None
    receipts: bool = False
    """Whole replies carry receipts of the calls that they release, in a header."""
    tests: tuple[Case, ...] = ()

    def rank(self, label: str | None) -> int:
        """A label's rank; the lowest for None. Raises ValueError for a label the file does not declare."""
        return 0 if label is None else self.labels.sensitivity.index(label)

    @property
    def highest(self) -> int:
        return len(self.labels.sensitivity) - 1
