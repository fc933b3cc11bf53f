"""Where a run stands: the runs above it, and the envelopes that bind it."""

from __future__ import annotations

import msgspec

from budgets import Bound, RunRef
from llm_proxy.identity.names import NameSet

ENVELOPE = "envelope:"
"""What the ids of envelopes' limits begin with, before the run's, and those of no other limit."""


class Lineage(msgspec.Struct, frozen=True):
    """What a call's run is bound by beyond the config's limits. One object serves all its calls."""

    ancestors: tuple[RunRef, ...] = ()
    """The nearest first; what the call spends counts in each of them."""
    envelopes: tuple[Bound, ...] = ()
    """Of the run and of its ancestors, where they were opened with one."""
    tools: tuple[NameSet, ...] = ()
    """One set of tools (names or globs) for each envelope that lists some."""
    expires_us: int | None = None
    """When the earliest of them ends."""

    def allows(self, tool: str) -> bool:
        """Whether every envelope that lists tools has this one."""
        return all(tool in listed for listed in self.tools)


ALONE = Lineage()
