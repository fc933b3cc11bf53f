"""A run's next revision, as the policy must remember it."""

from __future__ import annotations

from llm_proxy.records import bodies
from llm_proxy.records.evidence import RunUpdate
from llm_proxy.records.runstate import RunKey, RunState


def run_update(
    state: RunState,
    key: RunKey,
    *,
    sensitivity: int | None = None,
    untrusted: bool | None = None,
    denials: int | None = None,
    marks: int = 0,
) -> RunUpdate:
    """The run's next revision. Labels only rise, and marks stay."""
    return RunUpdate(
        revision=state.revision + 1,
        sensitivity=max(state.sensitivity, sensitivity or 0),
        untrusted=state.untrusted or bool(untrusted),
        labels=bodies.encode(state.labels).decode(),
        denials=state.denials if denials is None else denials,
        marks=state.marks | marks,
        agent_id=key.agent_id,
        run_id=key.run_id,
    )
