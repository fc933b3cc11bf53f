"""Where a run stands: the runs above it, and the envelopes that bind it."""

from __future__ import annotations

import msgspec

from budgets import Bound, RunRef


class Lineage(msgspec.Struct, frozen=True):
    """What a call's run is bound by beyond the config's limits. One object serves all its calls."""

    ancestors: tuple[RunRef, ...] = ()
    """The nearest first; what the call spends counts in each of them."""
    envelopes: tuple[Bound, ...] = ()
    """Of the run and of its ancestors, where they were opened with one."""
    tools: tuple[str, ...] | None = None
    """The only tools (names or globs) that the envelopes allow; None for no such list."""
    expires_us: int | None = None
    """When the earliest of them ends."""


ALONE = Lineage()
