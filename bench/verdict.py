"""What a verdict costs: the engine's own time, and what holding a streamed call adds through a real proxy.

Run as `python -m bench.verdict`. The first part judges one call by the twenty rules of `bench/policy.yaml`,
in a run of 40 earlier calls. The second sends streamed tool calls, one at a time and in turn, to a proxy
under that policy and to one without policy and tool budgets. That one holds nothing, and commits what a model
proposed after it was released.
"""

from __future__ import annotations

import argparse
import http.client
import json
import re
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench import servers
from bench.figures import percentile
from llm_proxy.policy.canonical import digest
from llm_proxy.policy.context import AgentFacts, Context, Done, RunFacts, UserFacts
from llm_proxy.policy.engine import PolicyEngine
from llm_proxy.policy.load import load_policy
from llm_proxy.policy.schema import Decision, Effect
from llm_proxy.policy.verdict import Proposed

POLICY = servers.PROXY_CONFIG.with_name("policy.yaml")
TARGET_US, TARGET_MS = 150.0, 0.5
NOW_S = 1_700_000_000.0
HISTORY = 40
_TOOLS = [{"type": "function", "function": {"name": "docs_search", "parameters": {"type": "object"}}}]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--verdicts", type=int, default=20_000)
    options.add_argument(
        "--calls", type=int, default=400, help="streamed tool calls, to each proxy; 0 for none"
    )
    chosen = options.parse_args()
    _tell_engine(engine_us(chosen.verdicts))
    if chosen.calls:
        _tell_proxy(held(chosen.calls))


def engine_us(count: int) -> list[float]:
    """Microseconds of each of `count` verdicts, no two on the same call."""
    engine = PolicyEngine(load_policy(POLICY))
    context = _context()
    taken: list[float] = []
    for n in range(count):
        call = Proposed("call", "docs_search", json.dumps({"query": f"late parcel {n}", "limit": 5}))
        began = time.perf_counter()
        (verdict,) = engine.decide([call], context)
        taken.append((time.perf_counter() - began) * 1e6)
        assert verdict.decision is Decision.ALLOW, verdict
    return taken


def _context() -> Context:
    history = tuple(
        Done(
            "docs_search",
            Effect.READ,
            Decision.ALLOW,
            completed=True,
            digest=digest("docs_search", {"query": f"before {n}"}),
            at_s=NOW_S - HISTORY + n,
        )
        for n in range(HISTORY)
    )
    run = RunFacts(calls=HISTORY, started_s=NOW_S - 60, role_at_start="support", history=history)
    agent = AgentFacts("bench", team="bench", role="support")
    return Context(agent, UserFacts("u"), run, NOW_S, user_text=lambda: "Where is parcel 7?", env="bench")


class Held(NamedTuple):
    """What a judged call takes beside one that passes as it comes; times are milliseconds."""

    judged: list[float]
    plain: list[float]
    commits: float
    """How many more a judged call has."""
    commit_ms: float
    """How long one of the judged calls' commits is on average: the verdicts' own is waited for, and in it
    the call is judged."""


def held(calls: int) -> Held:
    """Calls with the policy and without, by turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("mock", "sink", "judged", "plain"):
            (folder / name).mkdir()
        upstream = stack.enter_context(servers.mock(folder / "mock"))
        spans = stack.enter_context(servers.sink(folder / "sink"))
        judged = stack.enter_context(servers.proxy(folder / "judged", upstream, spans))
        plain = stack.enter_context(servers.proxy(folder / "plain", upstream, spans, _without_policy(folder)))
        lines = {"judged": _Line(judged), "plain": _Line(plain)}
        for line in lines.values():
            for n in range(20):
                line.call(f"warm {n}")
        before = {name: line.commits() for name, line in lines.items()}
        spent = lines["judged"].committing_s()
        took: dict[str, list[float]] = {name: [] for name in lines}
        for n in range(calls):
            for name in ("judged", "plain") if n % 2 else ("plain", "judged"):
                took[name].append(lines[name].call(f"call {n}"))
        each = {name: (line.commits() - before[name]) / calls for name, line in lines.items()}
        commit_s = (lines["judged"].committing_s() - spent) / (each["judged"] * calls)
        return Held(took["judged"], took["plain"], each["judged"] - each["plain"], commit_s * 1e3)


def _without_policy(folder: Path) -> Path:
    """The benchmark's configuration, without what makes tool calls wait."""
    text = servers.PROXY_CONFIG.read_text().replace("policy: policy.yaml", "")
    path = folder / "proxy.yaml"
    path.write_text(re.sub(r", tool_calls: [0-9_]+", "", text))
    return path


class _Line:
    """One keep-alive connection to a proxy."""

    def __init__(self, server: servers.Server) -> None:
        self._server = server
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self._sent = 0

    def call(self, text: str) -> float:
        """Milliseconds from the request to the stream's last byte. Every 20 calls begin a new run."""
        self._sent += 1
        messages = [{"role": "user", "content": text}]
        body = {"model": "mock-tools", "stream": True, "messages": messages, "tools": _TOOLS}
        headers = {
            "authorization": f"Bearer {self._server.key}",
            "content-type": "application/json",
            "x-run-id": f"run-{self._sent // 20}",
        }
        began = time.perf_counter()
        self._connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        reply = self._connection.getresponse()
        got = reply.read()
        took = (time.perf_counter() - began) * 1e3
        assert reply.status == 200, got
        assert b'"name":"docs_search"' in got.replace(b": ", b":"), got
        return took

    def commits(self) -> float:
        return self._metric(b"llm_proxy_commit_seconds_count")

    def committing_s(self) -> float:
        return self._metric(b"llm_proxy_commit_seconds_sum")

    def _metric(self, name: bytes) -> float:
        _, text = servers.fetch(self._server.port, "/metrics")
        found = re.search(rb"^%s\{[^}]*\} (\S+)$" % name, text, re.MULTILINE)
        assert found is not None, f"the proxy has no metric {name.decode()}"
        return float(found[1])


def _tell_engine(taken: list[float]) -> None:
    p50, p99 = percentile(sorted(taken), 50), percentile(sorted(taken), 99)
    met = "met" if p50 < TARGET_US else "missed"
    print(f"a verdict, 20 rules, {HISTORY} calls before: p50 {p50:.0f} us, p99 {p99:.0f} us")
    print(f"the target of under {TARGET_US:.0f} us is {met}")


def _tell_proxy(held: Held) -> None:
    plain, judged = statistics.median(held.plain), statistics.median(held.judged)
    added = judged - plain
    beside = added - held.commit_ms
    print(f"a streamed tool call: p50 {plain:.2f} ms as it comes, {judged:.2f} judged: {added:.2f} ms more")
    print(f"of that one commit, the judging in it: {held.commit_ms:.2f} ms; all else: {beside:.2f} ms")
    print(f"commits of a judged call beyond those of one as it comes: {held.commits:.2f}")
    met = "met" if beside < TARGET_MS and held.commits < 1.05 else "missed"
    print(f"the target of under {TARGET_MS} ms and one commit is {met}")


if __name__ == "__main__":
    main()
