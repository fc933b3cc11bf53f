"""The words of a policy file: closed choices, names, and the strictness that all its models share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=128)]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
ToolGlob = Annotated[str, Field(min_length=1, max_length=256)]
"""An exact tool name, or one with `*` for any run of characters."""


class Decision(StrEnum):
    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"

    @property
    def strictness(self) -> int:
        """Of two verdicts the one with the higher number wins."""
        return _STRICTNESS[self]


_STRICTNESS = {Decision.ALLOW: 0, Decision.ASK: 1, Decision.DENY: 2}


class Effect(StrEnum):
    READ = "read"
    WRITE = "write"
    IRREVERSIBLE = "irreversible"


class Tier(StrEnum):
    AUTONOMOUS = "autonomous"
    PRE_APPROVED = "pre-approved"
    HUMAN_APPROVAL = "human-approval"
    PROHIBITED = "prohibited"


class Sink(StrEnum):
    NONE = "none"
    INTERNAL = "internal"
    EXTERNAL = "external"


class Trust(StrEnum):
    INTERNAL = "internal"
    UNTRUSTED = "untrusted"


class Mode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


class OnDeny(StrEnum):
    REPLAN = "replan"
    REPLACE = "replace"
    ERROR = "error"


class Declare(StrEnum):
    """Whether tools that an agent may never call are kept from the model."""

    FILTER = "filter"
    PASS = "pass"  # noqa: S105 (what `declare` says)


class UnknownResults(StrEnum):
    LABEL = "label"
    REJECT = "reject"


class Per(StrEnum):
    """What a sum is counted over; a day is the caller's budget day."""

    RUN = "run"
    AGENT_DAY = "agent-day"
    USER_DAY = "user-day"


Detector = Literal["card_number", "iban", "email", "phone", "secret"]
DETECTORS: tuple[Detector, ...] = get_args(Detector)
Replacement = Literal["token", "last4", "mask", "remove"]
Restriction = Literal[Decision.ASK, Decision.DENY]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)
