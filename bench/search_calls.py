"""Recorded calls for `bench.search`: what they hold, and the rows that they leave."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec
import zstandard
from sqlalchemy import Connection, Table, text

from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.reply import ChoiceReply, ReasoningPart, Reply, ToolCall
from llm_proxy.records import bodies
from llm_proxy.records.blobs import ADDRESS, epoch_of
from llm_proxy.records.ids import now_us, uuid7
from llm_proxy.records.view import CallView, Decision, Status

DAYS = 90
VOCABULARY = 50_000
SENTENCES = 40_000
AGENTS, TOOLS, RULES = 50, 40, 10
PER_CALL = 4
"""Texts: prompt, reasoning, reply, tool call."""
TURNS, TURN_BYTES = 50, 1_000
_PACK = zstandard.ZstdCompressor(level=1)
_CHARS = "etaoinshrdlucmfwypvbgkqjxz"


class Words:
    """A vocabulary whose nth word is 1/n as common as the first, and sentences made of it."""

    def __init__(self, seed: int = 7) -> None:
        self.random = random.Random(seed)
        self.words = [_word(number) for number in range(VOCABULARY)]
        weights = list(accumulate(1 / (rank + 1) for rank in range(VOCABULARY)))
        self.sentences = [
            " ".join(self.random.choices(self.words, cum_weights=weights, k=self.random.randint(6, 14)))
            for _ in range(SENTENCES)
        ]

    def by_rank(self, rank: int) -> str:
        return self.words[rank - 1]

    def text(self) -> str:
        return ". ".join(self.random.choices(self.sentences, k=self.random.randint(2, 6)))


def _word(number: int) -> str:
    letters, left = "", number + 26
    while left:
        left, at = divmod(left, 26)
        letters += _CHARS[at]
    return letters


def phrases(words: Words) -> tuple[str, str]:
    """Three words that stand together somewhere, and three common ones that do in no sentence."""
    there = " ".join(words.sentences[11].split()[1:4])
    every = " | ".join(words.sentences)
    common = words.words[:12]
    nowhere = next(
        told
        for a in common
        for b in common
        for c in common
        if len({a, b, c}) == 3 and f" {(told := f'{a} {b} {c}')} " not in every
    )
    return there, nowhere


def calls_of(words: Words, texts: int, at_once: int) -> Iterator[list[CallView]]:
    """Calls with about so many texts, over the last `DAYS` days, a long run among the last of them."""
    count = max(1, texts // PER_CALL)
    start, step = now_us() - DAYS * 86_400_000_000, DAYS * 86_400_000_000 // (count + TURNS + 1)
    some: list[CallView] = []
    for number in range(count):
        some.append(_call(words, number, start + number * step))
        if len(some) == at_once:
            yield some
            some = []
    yield [*some, *_long_run(words, start + count * step, step)]


def _call(words: Words, number: int, at_us: int) -> CallView:
    pick = words.random
    agent = f"agent-{min(AGENTS - 1, int(pick.paretovariate(0.7)) - 1)}"
    tool, rule = f"tool-{pick.randrange(TOOLS)}", f"rule-{pick.randrange(RULES)}"
    decision = "deny" if pick.random() < 0.03 else "allow"
    arguments = json.dumps({"query": words.text(), "limit": number % 100})
    return _view(
        words, at_us, agent, f"run-{number // 10}", [{"role": "user", "content": words.text()}],
        (tool, rule, decision, arguments),
    )  # fmt: skip


def _long_run(words: Words, at_us: int, step: int) -> Iterator[CallView]:
    """Every turn resends all before it, and 50 KB of instructions."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": _long(words, 50_000)}]
    for turn in range(TURNS):
        messages.append({"role": "user", "content": _long(words, TURN_BYTES)})
        view = _view(words, at_us + turn * step, "agent-0", "long-run", messages, None)
        yield view
        assert view.reply is not None
        messages.append({"role": "assistant", "content": view.reply.choices[0].text})


def _long(words: Words, size: int) -> str:
    told = ""
    while len(told) < size:
        told += words.text() + ".\n"
    return told[:size]


def _view(
    words: Words,
    at_us: int,
    agent: str,
    run: str,
    messages: list[dict[str, Any]],
    tool: tuple[str, str, str, str] | None,
) -> CallView:
    said, thought = words.text(), words.text()
    id_ = uuid7(at_us)
    calls, decisions = (), ()
    if tool is not None:
        name, rule, decision, arguments = tool
        calls = (ToolCall(choice=0, index=0, id=f"call_{id_}", name=name, arguments=arguments),)
        decisions = (
            Decision(
                tool_call_id=f"call_{id_}", tool=name, arguments=arguments, decision=decision, rule=rule
            ),
        )
    reasoning = (ReasoningPart(kind=ReasoningKind.RAW, text=thought),)
    choice = ChoiceReply(index=0, text=said, reasoning=reasoning, calls=calls, finish="stop")
    return CallView(
        id=id_,
        run_id=run,
        agent_id=agent,
        started_us=at_us,
        status=Status.OK,
        user_id=f"user-{hash(run) % 1000}",
        model="m",
        request=json.dumps({"model": "m", "messages": messages}).encode(),
        decisions=decisions,
        reply=Reply(id="c", model="m", choices=(choice,), complete=True),
    )


class Rows(NamedTuple):
    records: list[dict[str, Any]]
    blobs: list[dict[str, Any]]
    call: dict[str, Any]


def rows_of(view: CallView, writer: str, number: int) -> Rows:
    """What the store holds of the call, whose content is a blob for the request and one for the reply."""
    assert view.request is not None
    assert view.reply is not None
    request, emitted = view.request, _emitted(view.reply)
    content = [(_address(view.id, b"q"), request), (_address(view.id, b"a"), emitted)]
    opened = bodies.Opened(
        dialect="openai_chat",
        model="m",
        user_id=view.user_id,
        content=bodies.Content(whole=content[0][0].hex()),
    )
    verdicts = bodies.Verdicts(decisions=view.decisions, revision=1)
    closed = bodies.Closed(status="ok", target="t", total_s=0.1, emitted=content[1][0].hex())
    told = [("call.opened", opened), ("call.verdicts", verdicts), ("call.closed", closed)]
    rows = [
        {
            "writer": writer,
            "seq": number * 3 + n + 1,
            "kind": kind,
            "at_us": view.started_us,
            "call_id": view.id,
            "run_id": view.run_id,
            "agent_id": view.agent_id,
            "body": bodies.encode(body),
            "hash": b"\0" * 32,
        }
        for n, (kind, body) in enumerate(told)
    ]
    packed = [
        {
            "id": id_,
            "epoch": epoch_of(view.started_us),
            "codec": "zstd",
            "size": len(c),
            "data": _PACK.compress(c),
        }
        for id_, c in content
    ]
    call = {
        "id": view.id, "run_id": view.run_id, "agent_id": view.agent_id, "team": "", "user_id": view.user_id,
        "key_id": "k", "dialect": "openai_chat", "stream": False, "model": "m", "status": "ok",
        "started_us": view.started_us, "ended_us": view.started_us + 1, "micro_usd": 10,
    }  # fmt: skip
    return Rows(rows, packed, call)


def _emitted(reply: Reply) -> bytes:
    choice = reply.choices[0]
    message: dict[str, Any] = {
        "role": "assistant",
        "content": choice.text,
        "reasoning_content": choice.reasoning[0].text,
    }
    if choice.calls:
        message["tool_calls"] = [
            {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}}
            for one in choice.calls
        ]
    told = {"index": 0, "message": message, "finish_reason": "stop"}
    return msgspec.json.encode({"id": "c", "model": "m", "choices": [told]})


def _address(id_: str, what: bytes) -> bytes:
    return hashlib.blake2b(id_.encode() + what, digest_size=ADDRESS).digest()


def fill_runs(connection: Connection, runs: Table, calls: Table) -> None:
    """The rows of the runs, by those of their calls."""
    connection.execute(
        text(
            f"INSERT INTO {runs.name} (agent_id, run_id, parent_run_id, team, user_id, role_at_start, "
            "inferred, started_us, revision, sensitivity, untrusted, labels, denials) "
            "SELECT agent_id, run_id, '', '', min(user_id), '', false, min(started_us), 0, 0, false, '[]', 0 "
            f"FROM {calls.name} GROUP BY agent_id, run_id"
        )
    )
