"""What a verdict rests on: caller, run and counters, as the policy engine and the record see them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from llm_proxy.exchange import Exchange
from llm_proxy.policy.context import AgentFacts, Context, DayFacts, Done, RunFacts, UserFacts
from llm_proxy.policy.limits import DAY_CALLS, DAY_WRITES
from llm_proxy.policy.schema import Decision as Ruling
from llm_proxy.policy.schema import Effect
from llm_proxy.records.judged import Judged, JudgedAgent, JudgedUser
from llm_proxy.records.runstate import RunState

_SUM = "sum:"


@dataclass(frozen=True, slots=True)
class Facts:
    """One moment's. `events` in Unix µs by name; `counters` by cap, sums in millionths."""

    exchange: Exchange
    state: RunState
    now_us: int
    env: str
    user_text: Callable[[], str]
    events: Mapping[str, int]
    counters: Mapping[str, int]

    def context(self) -> Context:
        """As the engine is asked."""
        exchange, counters = self.exchange, self.counters
        assert exchange.caller is not None
        agent = exchange.caller.agent
        events = {name: at / 1e6 for name, at in self.events.items()}
        return Context(
            agent=AgentFacts(agent.id, agent.team, agent.role, agent.owner, agent.scopes, agent.tools),
            user=user_facts(exchange),
            run=run_facts(self.state, len(exchange.lineage.ancestors), events),
            now_s=self.now_us / 1e6,
            day=DayFacts(counters.get(DAY_CALLS, 0), counters.get(DAY_WRITES, 0)),
            sums={
                cap.removeprefix(_SUM): Decimal(used).scaleb(-6)
                for cap, used in counters.items()
                if cap.startswith(_SUM)
            },
            user_text=self.user_text,
            env=self.env,
        )

    def judged(self, context: Context, identity: tuple[bool, ...]) -> Judged:
        """As the record keeps them."""
        agent, user, run = context.agent, context.user, context.run
        return Judged(
            now_us=self.now_us,
            sensitivity=run.sensitivity,
            untrusted=run.untrusted,
            labels=tuple(sorted(run.labels)),
            calls=run.calls,
            writes=run.writes,
            irreversible=run.irreversible,
            denials=run.denials,
            started_us=self.state.started_us,
            role_at_start=run.role_at_start,
            depth=run.depth,
            events=dict(self.events),
            counters=dict(self.counters),
            env=context.env,
            user=JudgedUser(id=user.id, role=user.role, clearance=user.clearance, verified=user.verified),
            agent=JudgedAgent(
                team=agent.team,
                role=agent.role,
                owner=agent.owner,
                scopes=dict(agent.scopes),
                tools=agent.tools,
            ),
            identity_from_user=identity,
        )


def user_facts(exchange: Exchange) -> UserFacts:
    """Role and clearance only of a user whom the credential itself names."""
    caller = exchange.caller
    if caller is None or not exchange.user_verified:
        return UserFacts(id=exchange.user_id)
    return UserFacts(exchange.user_id, caller.user_role, caller.user_clearance, verified=True)


def run_facts(state: RunState, depth: int, events: Mapping[str, float]) -> RunFacts:
    """A run's stored state, as the engine sees it."""
    allowed = [call for call in state.history if call.decision == "allow"]
    return RunFacts(
        sensitivity=state.sensitivity,
        untrusted=state.untrusted,
        labels=frozenset(state.labels),
        calls=len(allowed),
        writes=sum(call.effect != Effect.READ for call in allowed),
        irreversible=sum(call.effect == Effect.IRREVERSIBLE for call in allowed),
        denials=state.denials,
        started_s=state.started_us / 1e6,
        role_at_start=state.role_at_start,
        depth=depth,
        history=tuple(
            Done(
                tool=call.tool,
                effect=Effect(call.effect),
                decision=Ruling(call.decision),
                completed=call.answered_us is not None,
                digest=call.digest,
                at_s=call.at_us / 1e6,
            )
            for call in state.history
        ),
        events=events,
    )
