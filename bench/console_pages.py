"""The console's pages as `bench.console` asks for them, and the person who does."""

from __future__ import annotations

import http.client
import json
import time
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from bench.search_calls import Words
from bench.servers import Server

ADMIN = "an-admin-token-for-bench-console"
LONG_RUN = "run-of-50-turns"
TURNS = 50
_AGENT = "agent-7"
AGAIN_S = 0.02
MOST_S = 60.0
"""That a page may take to come."""


class Look(NamedTuple):
    """Both in ms. `answer`: the slowest answer, to its last byte, be it only the word that the page comes.
    `page`: from asking for the page until it's there, to its last byte."""

    answer: float
    page: float


class Visitor:
    """A person who is signed in, on one connection that is kept."""

    def __init__(self, port: int) -> None:
        self.put_off = set[str]()
        """Pages that were answered with a word first, and told when they were there."""
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        form = urlencode({"credential": ADMIN})
        told = {"content-type": "application/x-www-form-urlencoded", "sec-fetch-site": "same-origin"}
        self._connection.request("POST", "/console/signin", form, told)
        reply = self._connection.getresponse()
        reply.read()
        assert reply.status == 303, reply.status
        self._cookie = (reply.headers["set-cookie"] or "").partition(";")[0]

    def look(self, path: str) -> Look:
        """Asks until the page is there: at once, where a browser would wait for `Refresh`.

        Raises TimeoutError after `MOST_S`.
        """
        began, slowest, status = time.perf_counter(), 0.0, http.client.ACCEPTED
        while status == http.client.ACCEPTED:
            took, status = self._ask(path)
            slowest = max(slowest, took)
            if status == http.client.ACCEPTED:
                self.put_off.add(path)
                if time.perf_counter() - began > MOST_S:
                    raise TimeoutError(f"{path}: it didn't come within {MOST_S:g} s")
                time.sleep(AGAIN_S)
        return Look(slowest, (time.perf_counter() - began) * 1000)

    def _ask(self, path: str) -> tuple[float, int]:
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"cookie": self._cookie})
        reply = self._connection.getresponse()
        page = reply.read()
        took = (time.perf_counter() - began) * 1000
        if reply.status not in (http.client.OK, http.client.ACCEPTED):
            raise RuntimeError(f"{path}: status {reply.status}: {page[-600:].decode(errors='replace')}")
        return took, reply.status

    def admin(self, path: str) -> Any:
        self._connection.request("GET", path, headers={"authorization": f"Bearer {ADMIN}"})
        reply = self._connection.getresponse()
        return json.loads(reply.read())


def long_run(proxy: Server) -> None:
    """A run that resends its history, 50 KB of instructions and 1 KB more with every turn."""
    words = Words()
    text = " ".join(words.sentences)
    messages = [{"role": "system", "content": text[:50_000]}]
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)
    told = {"authorization": f"Bearer {proxy.key}", "content-type": "application/json", "x-run-id": LONG_RUN}
    for turn in range(TURNS):
        messages.append({"role": "user", "content": f"{turn}: {text[turn * 1_000 : (turn + 1) * 1_000]}"})
        connection.request(
            "POST", "/v1/chat/completions", json.dumps({"model": "mock-1", "messages": messages}), told
        )
        reply = connection.getresponse()
        answer = json.loads(reply.read())
        assert reply.status == http.client.OK, answer
        messages.append(answer["choices"][0]["message"])
    connection.close()


def every_page(visitor: Visitor) -> dict[str, str]:
    """Addresses by name."""
    words = Words()
    common, rare, middle = words.by_rank(1), words.by_rank(40_000), words.by_rank(300)
    run = visitor.admin(f"/admin/runs?agent={_AGENT}&limit=40")[-1]
    approval = visitor.admin("/admin/approvals?limit=1")[0]["id"]
    behind = f"{run['started_us']},{run['run_id']}"
    of_run = f"/console/runs/{quote(run['run_id'], safe='')}?agent={_AGENT}"
    pages = {
        "overview": "/console",
        "agents": "/console/agents",
        "an agent": f"/console/agents/{_AGENT}",
        "a run": of_run,
        "a run of 50 turns": f"/console/runs/{LONG_RUN}?agent=bench",
        "search": "/console/search",
        "search: a common word": f"/console/search?q={common}",
        "search: a rare word": f"/console/search?q={rare}",
        "search: a common word, of an agent": f"/console/search?q={common}&agent={_AGENT}",
        "approvals": "/console/approvals",
        "approvals: all": "/console/approvals?status=all",
        "approvals: expired": "/console/approvals?status=expired",
        "an approval": f"/console/approvals/{approval}",
        "policy": "/console/policy",
        "policy: 30 days": "/console/policy?since=30d",
        "policy: simulate": "/console/policy/simulate",
        "routes": "/console/routes",
        "routes: a model": "/console/routes?model=mock-1",
        "audit": "/console/audit",
    }
    for by in ("agent", "day,agent", "model,target", "user", "tag", "tool", "run", "week,model"):
        pages[f"spend by {by}"] = f"/console/spend?by={by}"
    pages["spend by agent, compared"] = "/console/spend?by=agent&since=7d&compare=1"
    pages["spend by run of an agent"] = f"/console/spend?by=run&agent={_AGENT}"
    return pages | _runs(behind, middle, common, rare)


def _runs(behind: str, middle: str, common: str, rare: str) -> dict[str, str]:
    asked = {
        "": "",
        "agent": f"agent={_AGENT}",
        "no such agent": "agent=nobody",
        "user": "user=user-30@example.com",
        "no such user": "user=nobody",
        "model": "model=model-3",
        "no such model": "model=nothing",
        "tool": "tool=tool_12",
        "no such tool": "tool=nothing",
        "denied": "decision=deny",
        "asked": "decision=ask",
        "rule": "rule=rule-3",
        "no such rule": "rule=nothing",
        "error": "error=upstream_failed",
        "no such error": "error=nothing",
        "cost": "min_cost=0.05",
        "more than any cost": "min_cost=999",
        "since": "since=3d",
        "until": "until=20d",
        "common word": f"words={common}",
        "word between": f"words={middle}",
        "rare word": f"words={rare}",
        "further page": f"before={quote(behind, safe='')}",
        "agent, model, denied, cost": f"agent={_AGENT}&model=model-9&decision=deny&min_cost=0.01",
        "all": (
            f"agent={_AGENT}&user=user-30@example.com&model=model-9&tool=tool_12&decision=deny&rule=rule-3"
            f"&error=upstream_failed&min_cost=0.01&since=29d&words={common}&before={quote(behind, safe='')}"
        ),
    }
    return {f"runs: {name}" if name else "runs": f"/console/runs?{query}" for name, query in asked.items()}
