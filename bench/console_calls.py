"""Recorded calls by the million for `bench.console`, with what they leave in every table that a page reads.

The calls are those of `bench.spend_calls`; their daily sums are written by the product's own code. Each has a
prompt and a reply, half propose tool calls that were judged, some of which a person was asked about. One text
of each is in the search index.
"""

from __future__ import annotations

import hashlib
import json
import random
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from sqlalchemy import Connection, Table, create_engine, text

from bench.search_calls import Words, fill_runs
from bench.spend_calls import DAYS, Made, made
from llm_proxy.archive.search_documents import TextKind, facet
from llm_proxy.archive.search_index import identity_of
from llm_proxy.archive.search_sqlite import SqliteIndex, index_file
from llm_proxy.archive.search_store import PER_DAY
from llm_proxy.archive.search_words import words as split
from llm_proxy.records import bodies
from llm_proxy.records.blobs import ADDRESS, KEPT, ensure_salt
from llm_proxy.records.evidence import CallClose
from llm_proxy.records.ids import uuid7, writer_id
from llm_proxy.records.migrate import upgrade
from llm_proxy.records.policy_tables import approvals, votes
from llm_proxy.records.rule_hits import added_hits, rule_hit_rows
from llm_proxy.records.statements import Statements, summed
from llm_proxy.records.tables import blobs, calls, records, runs, tool_calls, writers
from llm_proxy.records.view import Decision
from llm_proxy.spend.rollup import DAY_US, tool_rows

AGENTS = 20
CHUNK = 20_000
WAITING = 15
"""Approvals that wait for a person: about a third of the last calls ask for one."""
_MINUTE_US = 60_000_000
_PACK = zstandard.ZstdCompressor(level=1)
_NO_HASH = b"\0" * 32


class _Rows(NamedTuple):
    """What a chunk of calls leaves, by table. `told` is (day, id within it, words) for the search index."""

    records: list[tuple[Any, ...]]
    blobs: list[tuple[Any, ...]]
    calls: list[tuple[Any, ...]]
    tools: list[tuple[Any, ...]]
    approvals: list[dict[str, Any]]
    hits: list[Any]
    texts: list[tuple[Any, ...]]
    told: defaultdict[int, list[tuple[int, str]]]


def seed(file: Path, count: int, now_us: int) -> None:
    """Fills a new SQLite store with `count` calls of the last days, up to `now_us`."""
    engine = create_engine(f"sqlite:///{file}")
    upgrade(engine)
    with engine.connect() as connection:
        raw: sqlite3.Connection = connection.connection.driver_connection  # pyright: ignore
        raw.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-400000")
        ensure_salt(connection, KEPT)
        connection.commit()
        index = _index(file, identity_of(connection))
        _Seeder(connection, raw, index, now_us).fill(count)
        connection.commit()
        raw.executescript("PRAGMA journal_mode=WAL")
        index.commit()
        index.close()
    engine.dispose()


def _index(file: Path, identity: str) -> sqlite3.Connection:
    SqliteIndex.open(file, identity).close()
    index = sqlite3.connect(index_file(file))
    index.executescript("PRAGMA synchronous=OFF; PRAGMA cache_size=-200000")
    return index


class _Seeder:
    def __init__(
        self, connection: Connection, raw: sqlite3.Connection, index: sqlite3.Connection, now_us: int
    ) -> None:
        self._connection, self._raw, self._index, self._now = connection, raw, index, now_us
        self._statements = Statements(connection.dialect)
        self._words, self._random = Words(), random.Random(11)
        self._writer, self._seq = writer_id(now_us - DAYS * DAY_US), 0
        self._numbers: defaultdict[int, int] = defaultdict(int)
        self._waiting_from = 0

    def fill(self, count: int) -> None:
        self._waiting_from = count - WAITING * 3
        chunk: list[Made] = []
        for call in made(count, self._now, mixed=False, agents=AGENTS):
            chunk.append(call)
            if len(chunk) == CHUNK:
                self._write(chunk)
                chunk = []
        self._write(chunk)
        head = {"writer": self._writer, "started_us": 0, "seen_us": 0, "head_hash": _NO_HASH}
        head |= {"head_seq": self._seq, "exported_seq": self._seq, "searched_seq": self._seq}
        self._connection.execute(writers.insert().values(**head))
        self._index.execute("INSERT INTO cursors VALUES (?, ?)", (self._writer, self._seq))
        fill_runs(self._connection, runs, calls)
        self._join_runs()

    def _join_runs(self) -> None:
        """Every tenth agent's runs were begun by another's of the same time; runs know their denials."""
        for sql in (
            "UPDATE state_runs SET purpose = 'work on ' || run_id",
            "UPDATE state_runs SET parent_agent_id = substr(agent_id, 1, length(agent_id) - 1) || '8', "
            "parent_run_id = substr(run_id, 1, length(run_id) - 1) || '8' WHERE agent_id LIKE '%9'",
            "UPDATE state_runs SET denials = (SELECT count(*) FROM state_tool_calls t WHERE "
            "t.agent_id = state_runs.agent_id AND t.run_id = state_runs.run_id AND t.decision = 'deny')",
        ):
            self._connection.execute(text(sql))

    def _write(self, chunk: Sequence[Made]) -> None:
        rows = _Rows([], [], [], [], [], [], [], defaultdict(list))
        for call in chunk:
            self._add(rows, call)
        spends = [call.spend for call in chunk]
        shares = [
            row for call, spend in zip(chunk, spends, strict=True) for row in tool_rows(spend, call.tools)
        ]
        self._statements.spend.run(self._connection, [tuple(row) for row in summed(spends)])
        self._statements.tool_spend.run(self._connection, [tuple(row) for row in summed(shares)])
        self._statements.rule_hit.run(self._connection, list(added_hits(rows.hits)))
        self._insert(records, rows.records)
        self._insert(blobs, rows.blobs)
        self._insert(calls, rows.calls)
        self._insert(tool_calls, rows.tools)
        if rows.approvals:
            self._connection.execute(approvals.insert(), rows.approvals)
            self._connection.execute(votes.insert(), list(_votes(rows.approvals)))
        self._tell(rows)

    def _insert(self, table: Table, rows: list[tuple[Any, ...]]) -> None:
        if rows:
            names = _COLUMNS[table.name]
            sql = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            self._raw.executemany(sql, rows)

    def _tell(self, rows: _Rows) -> None:
        self._index.executemany("INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)", rows.texts)
        for day, told in rows.told.items():
            self._index.execute(
                f"CREATE VIRTUAL TABLE IF NOT EXISTS words_{day} "
                "USING fts5(words, content='', columnsize=0, tokenize='ascii')"
            )
            self._index.executemany(f"INSERT INTO words_{day} (rowid, words) VALUES (?, ?)", told)

    def _add(self, rows: _Rows, call: Made) -> None:
        by, close, day = call.by, call.close, call.started_us // DAY_US
        id_ = uuid7(call.started_us)
        prompt, said = (
            " ".join(self._random.choices(self._words.sentences, k=2)),
            self._words.sentences[call.number % 999],
        )
        tools = [
            (number, one.tool, json.dumps({"query": said, "n": number}))
            for number, one in enumerate(call.tools)
        ]
        request = _request(by.model, prompt)
        request_at = self._blob(rows, day, request, id_)
        reply_at = self._blob(rows, day, _reply(said, tools, id_), id_ + "r")
        decisions = tuple([self._judged(id_, *one) for one in tools])
        opened = bodies.Opened(
            dialect="openai_chat",
            model=by.model,
            team=by.team,
            user_id=by.user_id,
            content=bodies.Content(whole=request_at),
        )
        closed = bodies.Closed(
            status=close.status, target=by.target, total_s=2.0, first_event_s=0.4, emitted=reply_at,
            cost_micro_usd=close.micro_usd, cost_label=close.cost_label or "", requests=1,
        )  # fmt: skip
        told: list[tuple[str, Any]] = [("call.opened", opened), ("call.closed", closed)]
        if decisions:
            told.insert(1, ("call.verdicts", bodies.Verdicts(decisions=decisions, revision=1)))
            rows.hits.extend(rule_hit_rows(decisions, call.started_us))
        for kind, body in told:
            self._seq += 1
            rows.records.append(
                (self._writer, self._seq, kind, call.started_us, id_, call.run_id, by.agent_id,
                 bodies.encode(body), _NO_HASH)
            )  # fmt: skip
        rows.calls.append(
            (id_, call.run_id, by.agent_id, by.team, by.user_id, by.model, by.tags, "k", "openai_chat", False,
             call.started_us, *close[:-2], "upstream_failed" if close.status in ("failed", "cut") else None)
        )  # fmt: skip
        rows.tools.extend(
            (by.agent_id, call.run_id, id_, 0, one.index, one.tool_call_id, one.tool, one.decision, "read",
             one.digest, call.started_us)
            for one in decisions
        )  # fmt: skip
        self._approval(rows, call, id_, decisions)
        self._text(rows, call, id_, prompt, decisions)

    def _blob(self, rows: _Rows, day: int, content: bytes, name: str) -> str:
        id_ = hashlib.blake2b(name.encode(), digest_size=ADDRESS).digest()
        rows.blobs.append((id_, day, "zstd", len(content), _PACK.compress(content)))
        return id_.hex()

    def _judged(self, id_: str, number: int, tool: str, arguments: str) -> Decision:
        chance = self._random.random()
        rule, decision = f"rule-{self._random.randrange(25)}", "allow"
        if chance < 0.04:
            decision = "deny"
        hits: tuple[str, ...] = (rule,)
        if chance > 0.99:
            hits, rule = (rule,), "approved"
        return Decision(
            index=number, tool_call_id=f"call_{id_}_{number}", tool=tool, arguments=arguments,
            decision=decision, rule=rule, hits=hits, digest="0" * 64,
        )  # fmt: skip

    def _approval(self, rows: _Rows, call: Made, id_: str, decisions: Sequence[Decision]) -> None:
        at = call.started_us
        waits = call.number >= self._waiting_from
        for one in decisions[:1]:
            if not waits and one.rule != "approved":
                continue
            rows.approvals.append(
                {
                    "id": uuid7(at), "agent_id": call.by.agent_id, "run_id": call.run_id, "call_id": id_,
                    "tool_call_id": one.tool_call_id, "user_id": call.by.user_id, "tool": one.tool,
                    "effect": "write", "risk": "high", "arguments": one.arguments, "digest": one.digest,
                    "schema_hash": "", "policy": "", "rule": one.hits[0], "why": "it writes",
                    "approval": "default", "approvers": '["group:leads"]', "quorum": 1, "uses": 1,
                    "valid_us": 10 * _MINUTE_US, "requested_us": at,
                    "expires_us": at + (DAY_US if waits else 15 * _MINUTE_US),
                    "status": "pending" if waits else "approved", "uses_left": int(waits), "changed_us": at,
                    "valid_until_us": None if waits else at + 10 * _MINUTE_US,
                    "decided_us": None if waits else at + _MINUTE_US,
                }
            )  # fmt: skip

    def _text(self, rows: _Rows, call: Made, id_: str, prompt: str, decisions: Sequence[Decision]) -> None:
        by, day = call.by, call.started_us // DAY_US
        self._numbers[day] += 1
        number = self._numbers[day]
        always = (("kind", TextKind.PROMPT.value), ("agent", by.agent_id), ("run", call.run_id))
        facets = [facet(*one) for one in (*always, ("user", by.user_id), ("model", by.model))]
        for one in decisions:
            facets += [facet("tool", one.tool), facet("decision", one.decision), facet("rule", one.hits[0])]
            facets += [facet("decision", "ask")] if one.rule == "approved" else []
        message = b'{"role":"user","content":%b}' % json.dumps(prompt).encode()
        key = _key(by.agent_id, call.run_id, day, message)
        at = call.started_us
        rows.texts.append(
            (day * PER_DAY + number, key, id_, by.agent_id, call.run_id, at, TextKind.PROMPT.value, "")
        )
        rows.told[day].append((number, " ".join([*split(prompt), *facets])))


_COLUMNS = {
    "records": ("writer", "seq", "kind", "at_us", "call_id", "run_id", "agent_id", "body", "hash"),
    "blobs": ("id", "epoch", "codec", "size", "data"),
    "state_calls": (
        *("id", "run_id", "agent_id", "team", "user_id", "model", "tags", "key_id", "dialect", "stream"),
        *("started_us", *CallClose._fields[:-2], "error"),
    ),
    "state_tool_calls": (
        *("agent_id", "run_id", "call_id", "choice", "position", "tool_call_id", "tool", "decision"),
        *("effect", "digest", "at_us"),
    ),
}


def _votes(rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if row["status"] == "approved":
            yield {
                "approval_id": row["id"], "operator": "lea@example.com", "decision": "approve",
                "reason": "", "via": "admin", "at_us": row["decided_us"],
            }  # fmt: skip


def _request(model: str, prompt: str) -> bytes:
    message = b'{"role":"user","content":%b}' % json.dumps(prompt).encode()
    return b'{"model":"%b","messages":[%b]}' % (model.encode(), message)


def _reply(said: str, tools: Sequence[tuple[int, str, str]], id_: str) -> bytes:
    message: dict[str, Any] = {"role": "assistant", "content": said}
    if tools:
        message["tool_calls"] = [
            {"id": f"call_{id_}_{n}", "type": "function", "function": {"name": tool, "arguments": arguments}}
            for n, tool, arguments in tools
        ]
    told = {"index": 0, "message": message, "finish_reason": "stop"}
    return json.dumps({"id": id_, "model": "m", "choices": [told]}).encode()


def _key(agent: str, run: str, day: int, message: bytes) -> bytes:
    """As `archive.search_documents` makes the key of a message."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (agent, run, str(day)):
        digest.update(part.encode() + b"\0")
    digest.update(b"message\0" + message)
    return digest.digest()
