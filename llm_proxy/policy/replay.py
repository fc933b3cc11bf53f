"""One run, as it's on record, seen by a policy: what its calls and results did to it, by that registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from llm_proxy.policy import names
from llm_proxy.policy.actions import read_action
from llm_proxy.policy.context import Done, RunFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.past import Came, Event, Judged, Start, proposed
from llm_proxy.policy.verdict import Verdict
from llm_proxy.policy.vocabulary import Decision, Effect
from llm_proxy.records.columns import column
from llm_proxy.records.evidence import tool_call_key


class RunReplay:
    """Goes as the recorded run went: what was released then was done, whatever this policy says of it.

    Labels and effects are by this policy's registry, since that's where they come from.
    """

    def __init__(self, engine: PolicyEngine, start: Start) -> None:
        self._engine = engine
        self._start = start
        self._done: list[Done] = []
        self._ids: dict[str, list[int]] = {}
        """Where the released calls of an id stand in `_done`, as long as none was answered."""
        self._sensitivity = 0
        self._untrusted = False
        self._denials = 0

    def add(self, event: Event) -> None:
        """What happened next."""
        if isinstance(event, Came):
            self._answered(event)
        else:
            policy = self._engine.policy
            actions = [read_action(proposed(recorded), policy) for recorded in event.decisions]
            read = zip(event.decisions, actions, strict=True)
            # Of arguments that aren't kept, the digest is what the record says.
            digests = [action.digest if recorded.kept else recorded.digest for recorded, action in read]
            effects = [action.tool.spec.effect for action in actions]
            self._judged(event, list(zip(effects, digests, strict=True)))

    def judged(self, event: Judged, verdicts: Sequence[Verdict]) -> None:
        """The same as `add`, where the calls were read before: `verdicts` are this policy's."""
        self._judged(event, [(verdict.effect, verdict.digest) for verdict in verdicts])

    def _answered(self, event: Came) -> None:
        for result in event.results:
            label = self._engine.result_label(result.tool or None, known=result.known)
            self._sensitivity = max(self._sensitivity, label.sensitivity)
            self._untrusted = self._untrusted or label.untrusted
            for at in self._ids.pop(tool_call_key(result.tool_call_id), ()):
                self._done[at] = replace(self._done[at], completed=True)

    def _judged(self, event: Judged, read: Sequence[tuple[Effect, str]]) -> None:
        for recorded, (effect, digest) in zip(event.decisions, read, strict=True):
            decision = Decision.ALLOW if recorded.released else Decision.DENY
            if recorded.released:
                self._ids.setdefault(tool_call_key(recorded.tool_call_id), []).append(len(self._done))
            self._done.append(Done(column(recorded.tool), effect, decision, False, digest, event.at_us / 1e6))
            self._denials += recorded.decision == "deny" and recorded.rule not in names.UNANSWERED

    @property
    def size(self) -> int:
        """What it takes to remember it: the run, and each of its calls."""
        return 1 + len(self._done)

    def facts(self) -> RunFacts:
        """The run as it stands now."""
        allowed = [done for done in self._done if done.decision is Decision.ALLOW]
        return RunFacts(
            sensitivity=self._sensitivity,
            untrusted=self._untrusted,
            calls=len(allowed),
            writes=sum(done.effect is not Effect.READ for done in allowed),
            irreversible=sum(done.effect is Effect.IRREVERSIBLE for done in allowed),
            denials=self._denials,
            started_s=self._start.started_s,
            role_at_start=self._start.role,
            history=tuple(self._done),
        )
