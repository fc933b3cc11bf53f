"""Tool calls judged over a real store, without an upstream: what an agent proposes, and what people say."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import Engine, select

from llm_proxy.approving import Rejected, Vote, Voted, Word, vote
from llm_proxy.asking import Approvals, decided_in
from llm_proxy.chat.reply import ToolCall
from llm_proxy.exchange import Exchange
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.judge import Judge, Rules
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import read_policy
from llm_proxy.records.policy_rows import ApprovalRow
from llm_proxy.records.policy_tables import approvals
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.view import Decision
from llm_proxy.records.writer import Writer
from llm_proxy.turns import Turns
from tests.stores import Clock, Desk, body_of, writing

POLICY = """\
policy: {id: p, version: 1}
on_deny: replace
tools:
  look: {effect: read, tier: autonomous}
  pay: {effect: write, tier: human-approval, args: {type: object}}
  wire: {effect: irreversible, tier: autonomous}
  wipe: {effect: irreversible, tier: prohibited}
approvals:
  default: {approvers: ["group:leads"], expires_s: 900, hold_s: 0, grant: {uses: 1, valid_s: 300}}
"""
_ids = count()


def rules(extra: str = "", base: str = POLICY) -> Rules:
    """The policy of `base`, where everybody whom it names may approve."""
    policy = read_policy((base + extra).encode(), "p.yaml")
    file = policy.file
    answerable = frozenset(file.approvals)
    return Rules(PolicyEngine(policy), policy.sha256, file.policy.mode, file.on_deny, answerable)


def pay(amount: object = 5, id_: str = "", tool: str = "pay") -> ToolCall:
    return ToolCall(
        choice=0, index=0, id=id_ or f"call-{next(_ids)}", name=tool, arguments=f'{{"amount": {amount}}}'
    )


@dataclass
class Bench:
    """One process: a writer, a clock, and whoever waits in it."""

    engine: Engine
    writer: Writer
    clock: Clock
    rules: Rules = field(default_factory=rules)
    turns: Turns = field(default_factory=Turns)

    def __post_init__(self) -> None:
        self.desk = Desk(self.writer, self.clock)
        self.approvals = Approvals(decided_in(self.engine, self.clock))

    async def open(self, run: str = "run-1", agent: str = "bot") -> Exchange:
        """A call of the agent in the run, admitted."""
        exchange = await self.desk.read(body_of(), run)
        exchange.caller = Caller(Agent(agent, team="support", role="triage"), "key-1")
        await self.desk.admit(exchange, self.rules)
        return exchange

    async def judge(
        self, *calls: ToolCall, run: str = "run-1", agent: str = "bot", by: Rules | None = None, **more: Any
    ) -> list[Decision]:
        """What becomes of the calls of one reply."""
        exchange = await self.open(run, agent)
        numbered = tuple(
            ToolCall(choice=0, index=n, id=call.id, name=call.name, arguments=call.arguments)
            for n, call in enumerate(calls)
        )
        await self.judge_of(exchange, by, **more)(numbered)
        return exchange.decisions

    def judge_of(self, exchange: Exchange, by: Rules | None = None, **more: Any) -> Judge:
        told: dict[str, Any] = {"approvals": self.approvals} | more
        return Judge(
            *(exchange, by or self.rules, None, self.writer, self.clock, "test", self.turns),
            **told,
        )

    async def say(
        self, id_: str, who: str = "dana@example.com", word: Word = "approve", **more: Any
    ) -> Voted | Rejected:
        row = self.row(id_)
        given = Vote(operator=who, decision=word, via="test", at_us=self.clock())
        job = vote(id_, RunKey(row.agent_id, row.run_id), given, self.clock(), **more)
        return await self.writer.submit(job)

    def rows(self) -> list[ApprovalRow]:
        """Every approval, the oldest first."""
        columns = [approvals.c[name] for name in ApprovalRow._fields]
        with self.engine.connect() as connection:
            found = connection.execute(
                select(*columns).order_by(approvals.c.requested_us, approvals.c.arguments)
            ).all()
        return [ApprovalRow(*row) for row in found]

    def row(self, id_: str) -> ApprovalRow:
        return next(row for row in self.rows() if row.id == id_)


@asynccontextmanager
async def bench(engine: Engine, clock: Clock | None = None) -> AsyncGenerator[Bench]:
    clock = clock or Clock()
    async with writing(engine, clock) as writer:
        yield Bench(engine, writer, clock)


def told(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(one.decision, one.rule) for one in decisions]
