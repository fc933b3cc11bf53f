"""Attempts that failed and may have cost something."""

from __future__ import annotations

from dataclasses import dataclass

from llm_proxy.chat.reply import Assembly
from llm_proxy.resume import Resume
from llm_proxy.sending.attempt import Attempting
from routing.failures import Charge


@dataclass(frozen=True, slots=True)
class LostTry:
    """An attempt that failed and may have cost something, and what came of its reply."""

    assembly: Assembly
    charge: Charge
    provider: str
    model: str
    resumed: Resume | None = None
    """What it was asked to go on with."""


def lost_try(attempt: Attempting, charge: Charge) -> LostTry:
    target = attempt.step.target
    return LostTry(attempt.flow.assembly, charge, target.provider, target.model, attempt.outgoing.resumes)
