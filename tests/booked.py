"""Random calls in a store, written as the proxy does: holds, verdicts, settlements, refusals, crashes."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec
from sqlalchemy import Engine

from budgets import Amount, Expire, Hold, Limit, LimitBook, Scope, Settle, Subject, Take, Unit, window_named
from llm_proxy import journal
from llm_proxy.chat.events import CallDelta, Usage
from llm_proxy.counting.text import TokenCounter
from llm_proxy.exchange import Exchange, Spent
from llm_proxy.identity.caller import Agent, Caller
from llm_proxy.identity.headers import Hints
from llm_proxy.intake import Reader
from llm_proxy.records import bodies
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind
from llm_proxy.records.ids import uuid7
from llm_proxy.records.view import Attempt, CostLabel, Decision, Problem, Status
from llm_proxy.records.writer import Writer
from llm_proxy.recovery import Recovery
from llm_proxy.settle import amount
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from tests.stores import NOW, Clock, body_of

DAY_US = 86_400_000_000
BIG = 10**15
BOOK = LimitBook(
    [
        Limit(
            "all", Scope(), window_named("lifetime"), {Unit.USD: BIG, Unit.TOKENS: BIG, Unit.REQUESTS: BIG}
        ),
        Limit("day", Scope(agent="*"), window_named("day"), {Unit.USD: BIG, Unit.TOOL_CALLS: BIG}),
        Limit("run", Scope(agent="*"), window_named("run"), {Unit.TOKENS: BIG, Unit.WRITES: BIG}),
        Limit("tag", Scope(tag="env=*"), window_named("month"), {Unit.INPUT_TOKENS: BIG}),
        Limit("user", Scope(user="*"), window_named("hour"), {Unit.OUTPUT_TOKENS: BIG}),
    ]
)
AGENTS = [Agent(f"bot-{n}", team=("crew", "ops", "")[n % 3], role="r") for n in range(4)]
TAGS = [(), ("env=prod",), ("env=test", "nightly"), ("env:blue", "env=prod"), ("=evil", "cost=1")]
LABELS = [CostLabel.REPORTED, CostLabel.ESTIMATED, CostLabel.PARTIAL, CostLabel.UNPRICED]
ENDS = [Status.OK] * 6 + [Status.FAILED, Status.CUT, Status.CLIENT_GONE, Status.REFUSED]
TOOLS = ["search", "pay", "=cmd()", "read"]


@dataclass(slots=True)
class Called:
    """One call, as the test knows it to be."""

    agent: str
    team: str
    user: str
    run: str
    model: str
    target: str
    provider: str
    tags: tuple[str, ...]
    started_us: int
    status: Status
    input: int = 0
    output: int = 0
    micro_usd: int = 0
    label: CostLabel | None = None
    lost: int = 0
    attempts: int = 0
    tools: list[str] = field(default_factory=list[str])
    denied: int = 0


class Books:
    """Writes calls of the `days` before now. `called` is every one that ended."""

    def __init__(self, engine: Engine, writer: Writer, seed: int, days: int = 4) -> None:
        self._engine = engine
        self.writer = writer
        self.clock = Clock()
        self.called: list[Called] = []
        self._random = random.Random(seed)
        self._days = days
        self._reader = Reader(writer.addresser, TokenCounter())

    async def write(self, calls: int) -> None:
        """So many calls, of which some are refused and some found dead."""
        for _ in range(calls):
            exchange = await self.exchange()
            chance = self._random.random()
            if chance < 0.1:
                await self._refuse(exchange)
                continue
            await self.open(exchange)
            if chance < 0.15:
                await self._die(exchange)
            else:
                await self._tools(exchange)
                await self.end(exchange)

    async def exchange(self) -> Exchange:
        chance = self._random
        agent = chance.choice(AGENTS)
        started = NOW - chance.randrange(self._days * DAY_US)
        body = body_of(model=chance.choice(["m", "n"]))
        exchange = Exchange(uuid7(started), started, OPENAI_CHAT, clock0=0.0, body=body)
        exchange.caller = Caller(agent, "key-1")
        exchange.run_id = f"run-{chance.randrange(6)}"
        exchange.user_id = chance.choice(["", "ada@example.com", "bob"])
        exchange.hints = Hints(tags=chance.choice(TAGS))
        exchange.request = OPENAI_CHAT.parse(body)
        exchange.intake = await self._reader.read(exchange.request, OPENAI_CHAT, count=False)
        return exchange

    async def open(self, exchange: Exchange) -> None:
        """Its worst case is held, and its opening record committed."""
        assert exchange.caller is not None
        assert exchange.request is not None
        subject = Subject(
            agent=exchange.caller.agent.id,
            team=exchange.caller.agent.team or None,
            user=exchange.user_id or None,
            model=exchange.request.model,
            run=exchange.run_id,
            tags=exchange.hints.tags,
        )
        exchange.bounds = BOOK.bounds(subject, exchange.started_us)
        exchange.held = Amount(100_000, 9_000, 5_000, 4_000, 1, concurrency=1)
        exchange.floor = Amount(77, 11, 11, 0, 1)
        hold = Hold(exchange.id, exchange.bounds, exchange.held, exchange.floor, NOW + DAY_US)
        evidence = journal.opened(exchange)
        await self.writer.submit(Job(lambda _: Wrote(None, evidence), ops=(hold,)))

    async def end(self, exchange: Exchange) -> None:
        """Settled and closed in one transaction."""
        chance = self._random
        exchange.status = chance.choice(ENDS)
        exchange.problem = None if exchange.status is Status.OK else Problem(kind="k", message="m")
        exchange.reached_upstream = chance.random() < 0.9
        exchange.target, exchange.provider = chance.choice([("a", "openai"), ("b", "anthropic")])
        tries = chance.choice([1, 1, 1, 2, 3])
        exchange.attempts = [_attempt(exchange)] * tries
        usage = Usage(
            input=chance.randrange(5_000), output=chance.randrange(4_000), cached=chance.randrange(9)
        )
        label = chance.choice(LABELS)
        micro_usd = 0 if label is CostLabel.UNPRICED else chance.randrange(90_000)
        exchange.spent = Spent(usage, micro_usd, label)
        exchange.lost = [Spent(Usage(), min(5, micro_usd), CostLabel.PARTIAL)] if tries > 1 else []
        used = amount(exchange.spent, requests=int(exchange.reached_upstream))
        evidence = journal.closed(exchange, self.writer.addresser, self.clock())
        await self.writer.submit(Job(lambda _: Wrote(None, evidence), ops=(Settle(exchange.id, used),)))
        call = self._note(exchange, usage.input, usage.output, micro_usd)
        call.label, call.attempts = label, tries
        call.lost = min(5, micro_usd) if tries > 1 else 0
        call.tools = [d.tool for d in exchange.decisions] or [c.name for c in exchange.assembly.calls()]
        call.denied = sum(d.decision == "deny" for d in exchange.decisions)

    async def _tools(self, exchange: Exchange) -> None:
        """Up to four tool calls: judged, where a limit counts them, or only seen."""
        chance = self._random
        names = [chance.choice(TOOLS) for _ in range(chance.choice([0, 0, 1, 4]))]
        if not names:
            return
        for index, name in enumerate(names):
            exchange.assembly.add(CallDelta(choice=0, index=index, id=f"c{index}", name=name))
        if chance.random() < 0.3:
            return
        exchange.decisions = [
            Decision(
                index=index,
                tool_call_id=f"c{index}",
                tool=name,
                arguments="{}",
                decision="deny" if chance.random() < 0.3 else "allow",
                effect="write" if name == "pay" else "read",
            )
            for index, name in enumerate(names)
        ]
        takes = tuple(
            Take(exchange.id, exchange.bounds, Amount(tool_calls=1, writes=int(decision.effect == "write")))
            for decision in exchange.decisions
            if decision.released
        )
        body = bodies.encode(bodies.Verdicts(decisions=tuple(exchange.decisions), revision=1))
        assert exchange.caller is not None
        who = (exchange.id, exchange.run_id, exchange.caller.agent.id)
        evidence = Evidence(records=(Draft(RecordKind.VERDICTS, self.clock(), *who, body),))
        await self.writer.submit(Job(lambda _: Wrote(None, evidence), ops=takes))

    async def _refuse(self, exchange: Exchange) -> None:
        exchange.status = Status.REFUSED
        exchange.problem = Problem(kind="budget_exceeded", message="m", status=429)
        evidence = journal.refused(exchange, self.writer.addresser, self.clock())
        await self.writer.submit(Job(lambda _: Wrote(None, evidence)))
        self._note(exchange, 0, 0, 0)

    async def _die(self, exchange: Exchange) -> None:
        """Its lease runs out, and recovery closes it."""
        await self.writer.submit(Job(lambda _: Wrote(None), ops=(Expire(NOW + 2 * DAY_US),)))
        recovery = Recovery(self._engine, self.writer, {}, lambda: NOW)
        assert await recovery.step() == 1
        exchange.status, exchange.target, exchange.provider = Status.INTERRUPTED, "", ""
        call = self._note(exchange, 11, 0, 77)
        call.label = CostLabel.PARTIAL

    def _note(self, exchange: Exchange, input_: int, output: int, micro_usd: int) -> Called:
        assert exchange.caller is not None
        assert exchange.request is not None
        agent = exchange.caller.agent
        call = Called(
            agent=agent.id,
            team=agent.team,
            user=exchange.user_id,
            run=exchange.run_id,
            model=exchange.request.model,
            target=exchange.target,
            provider=exchange.provider,
            tags=tuple(sorted(exchange.hints.tags)),
            started_us=exchange.started_us,
            status=exchange.status,
            input=input_,
            output=output,
            micro_usd=micro_usd,
        )
        self.called.append(call)
        return call


def _attempt(exchange: Exchange) -> Attempt:
    return Attempt(
        target=exchange.target, provider=exchange.provider, model="m", started_s=0.0, ended_s=0.1, status=200
    )


def closed_body(body: bytes, **changed: object) -> bytes:
    """A closing record's body with some of it replaced."""
    return bodies.encode(msgspec.structs.replace(bodies.read_closed(body), **changed))
