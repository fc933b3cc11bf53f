"""Calls as a company's agents make them, by the million, made up from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from llm_proxy.chat.events import Usage
from llm_proxy.records import bodies
from llm_proxy.records.evidence import CallClose, SpendRow
from llm_proxy.spend.rollup import DAY_US, Grouped, Proposed, spend_row

AGENTS = 50
MODELS = 20
USERS = 200
DAYS = 30
TOOLS = 30
_STATUSES = ["ok"] * 94 + ["failed", "cut", "client_gone", "refused", "refused", "interrupted"]
_LABELS = ["reported"] * 95 + ["estimated"] * 3 + ["partial", "unpriced"]


class Made(NamedTuple):
    """One call: what it's summed up by, its closing row, its tools, and its records' bodies."""

    number: int
    id: str
    run_id: str
    started_us: int
    by: Grouped
    close: CallClose
    tools: list[Proposed]

    @property
    def spend(self) -> SpendRow:
        return spend_row(self.started_us, self.by, self.close)

    @property
    def used(self) -> tuple[int, ...]:
        """What the ledger counts, in its order."""
        input_, output = self.close.input_tokens or 0, self.close.output_tokens or 0
        return (self.close.micro_usd, input_ + output, input_, output, 1)

    def opened(self) -> bytes:
        body = bodies.Opened(dialect="openai_chat", model=self.by.model, bounds=("everyone|lifetime",))
        return bodies.encode(body)

    def closed(self) -> bytes:
        close = self.close
        usage = Usage(input=close.input_tokens or 0, output=close.output_tokens or 0)
        body = bodies.Closed(
            status=close.status,
            usage=usage,
            cost_micro_usd=close.micro_usd,
            cost_label=close.cost_label or "",
            requests=1,
            tools=tuple(tool.tool for tool in self.tools),
        )
        return bodies.encode(body)


def made(count: int, now_us: int, *, mixed: bool, agents: int = AGENTS) -> Iterator[Made]:
    """So many calls, evenly over the days before `now_us`, the oldest first; runs have twenty of them.

    An agent works with two models, for eight users, under two sets of tags, unless all is `mixed`.
    """
    chance = random.Random(7)
    step = DAYS * DAY_US // count
    began = now_us - count * step
    for number in range(count):
        agent = chance.randrange(agents)
        model = chance.randrange(MODELS) if mixed else (agent * 7 + chance.randrange(2) * 3) % MODELS
        user = chance.randrange(USERS) if mixed else (agent * 4 + chance.randrange(8)) % USERS
        env = chance.choice(("prod", "prod", "test"))
        started = began + number * step
        status, label = chance.choice(_STATUSES), chance.choice(_LABELS)
        by = Grouped(
            f"agent-{agent}",
            f"team-{agent % 8}",
            f"user-{user}@example.com",
            f"model-{model}",
            f"target-{model}-{chance.random() < 0.05:d}",
            ("openai", "anthropic", "gemini")[model % 3],
            f"cost-centre={agent % 12},env={env}",
        )
        tokens = (0, 0) if status == "refused" else (chance.randrange(200, 8_000), chance.randrange(10, 900))
        cost = 0 if label == "unpriced" or status == "refused" else tokens[0] // 4 + 2 * tokens[1]
        id_ = f"{number:036x}"
        close = CallClose(
            status,
            started + 2_000_000,
            by.target,
            by.provider,
            1,
            *tokens,
            0,
            0,
            0,
            cost,
            0,
            label,
            "v1",
            None,
            id_,
        )
        tools: list[Proposed] = []
        if status not in ("refused", "interrupted"):
            # An agent has six tools, and uses the first ones most.
            chosen = [
                agent + min(chance.randrange(6), chance.randrange(6))
                for _ in range(chance.choice((0, 0, 1, 2)))
            ]
            tools = [Proposed(f"tool_{at % TOOLS}") for at in chosen]
        yield Made(number, id_, f"run-{number // (20 * agents)}-{agent}", started, by, close, tools)
