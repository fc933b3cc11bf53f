"""Arguments that a redaction wrote anew: whether the call may be given so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llm_proxy.policy import names
from llm_proxy.policy.actions import Action, read_action
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.destinations import Scopes
from llm_proxy.policy.schema import Decision
from llm_proxy.policy.verdict import Proposed, Verdict, answered

_TELL = "Its arguments hold a value that is not passed on, and can't do without it"


@dataclass(frozen=True, slots=True)
class Given:
    """Calls as they'd be given. `misfits` says of some why they may not be."""

    digests: tuple[str, ...] = ()
    """For each call; empty where it is given as it was judged. None at all where all are."""
    misfits: Mapping[int, str] = field(default_factory=dict[int, str])


def as_given(judged: Sequence[Proposed], given: Sequence[Proposed], policy: Policy, scopes: Scopes) -> Given:
    """What the calls, as they were `judged`, come to as they'd be `given`."""
    digests, misfits = [""] * len(judged), dict[int, str]()
    for n, (before, after) in enumerate(zip(judged, given, strict=True)):
        if before == after:
            continue
        action = read_action(after, policy)
        digests[n] = action.digest
        if why := _misfit(read_action(before, policy), action, scopes):
            misfits[n] = why
    return Given(tuple(digests), misfits)


def not_as_given(verdict: Verdict, misfit: str) -> Verdict:
    """The verdict on a call whose arguments pass as the model wrote them, and fail as they'd be given."""
    if verdict.decision is Decision.DENY:
        return verdict
    return answered(verdict, Decision.DENY, names.REDACTED_ARGS, f"redacted: {misfit}", _TELL)


def _misfit(judged: Action, given: Action, scopes: Scopes) -> str:
    """Why the action as it is `given` fails what it passed as it was `judged`; empty where it doesn't.
    A check that did not hold before is for whoever let it pass all the same."""
    if given.refused or judged.refused:
        return given.refused
    tool = given.tool
    if tool.schema is not None and (complaint := tool.schema.complaint(given.arguments)):
        return complaint
    for argument, holds in tool.checks:
        before, after = judged.arguments.get(argument), given.arguments.get(argument)
        if after != before and holds(before, scopes) and not holds(after, scopes):
            return f"{argument} is not wholly within {tool.spec.check[argument]} any more"
    return ""
