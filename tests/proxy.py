"""A real proxy for tests: `python -m llm_proxy serve` on a free port, with its store open beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import openai
from sqlalchemy import Engine, create_engine, func, make_url, select
from sqlalchemy.pool import NullPool

from budgets.sql_tables import TABLES
from llm_proxy.archive.calls import call_view, call_views
from llm_proxy.archive.listings import list_calls, list_refusals
from llm_proxy.records.engine import open_engine
from llm_proxy.records.tables import records, writers
from llm_proxy.records.view import CallView

KEY = "sk-bot-0123456789abcdef"
OTHER_KEY = "sk-other-0123456789abcdef"
ORIGIN = "http://origin.of.the.proxy"
"""Stands in a config for the address of the proxy that has it."""
READY_S = 60.0
"""A start takes about two seconds; on a loaded machine many times that."""
EXPECTED_ERRORS = frozenset(
    {
        "the store can't be written",
        "issued keys can't be read",
        "who may call can't be read",
        "runs can't be read",
        "the store can't be read",
    }
)
"""What a proxy whose store is down may say; any other error in its log fails the test."""


def config(base_url: str, **more: Any) -> dict[str, Any]:
    """One priced model `m` at `base_url`, and the agent `bot` that may use all; `more` replaces sections."""
    return {
        "server": {"drain_s": 1},
        "models": {"m": {"targets": [target("up", base_url)], "retries": 0}},
        "agents": {"bot": {"team": "crew", "keys": [KEY], "models": ["*"]}},
        "prices": {"m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}},
    } | more


def target(id_: str, base_url: str, model: str = "m") -> dict[str, Any]:
    return {"id": id_, "provider": "openai", "model": model, "base_url": base_url, "api_key": "sk-upstream"}


def _keeping_no_connection(url: str) -> Engine:
    """So that a store can be read after its proxy ended, and nothing is left open by that."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return open_engine(parsed)
    return create_engine(parsed, poolclass=NullPool)


class ProxyProcess:
    """The server process, or several with `workers`. `config` and `policy` are written as files to `folder`.

    The test reads the store directly; `read_from` is another URL of it. Its log may hold errors `may_say`.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *,
        policy: Mapping[str, Any] | None = None,
        workers: int = 1,
        store_may_fail: bool = False,
        read_from: str | None = None,
        may_say: frozenset[str] = frozenset(),
    ) -> None:
        self._file = folder / "proxy.yaml"
        self._log = folder / "proxy.log"
        self._workers = workers
        self._may_say = may_say | (EXPECTED_ERRORS if store_may_fail else frozenset[str]())
        self._process: asyncio.subprocess.Process | None = None
        self.port = free_port()
        self.store: str = config.get("store", f"sqlite:///{folder / 'store.db'}")
        self.engine: Engine = _keeping_no_connection(read_from or self.store)
        told = {**config, "store": self.store}
        if policy is not None:
            (folder / "policy.yaml").write_text(json.dumps(policy))
            told["policy"] = str(folder / "policy.yaml")
        self._file.write_text(json.dumps(told).replace(ORIGIN, self.origin))

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What an OpenAI SDK takes as `base_url`."""
        return self.origin + "/v1"

    @property
    def url(self) -> str:
        return self.base_url + "/chat/completions"

    @property
    def pid(self) -> int:
        """The server's process; with several workers, their parent."""
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> ProxyProcess:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.terminate()
        finally:
            self.engine.dispose()
        if error is None:
            assert self.complaints() == [], "the proxy logged errors"

    async def start(self) -> None:
        """Starts the server and waits until every worker of it is there."""
        known = self._writers() if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "llm_proxy", "serve", "--config", str(self._file)),
                *("--port", str(self.port), "--workers", str(self._workers)),
                stdout=log,
                stderr=log,
                cwd=self._file.parent,
                start_new_session=True,
            )
        try:
            await until(self._is_ready, "the proxy is ready", READY_S)
            await until(lambda: self._writers() >= known + self._workers, "all workers write", READY_S)
        except BaseException as error:
            self.kill9()
            error.add_note(self.log()[-4_000:])
            raise

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, "the proxy ended at once"
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.origin}/health/ready") as reply:
                return reply.status == 200
        except aiohttp.ClientError:
            return False

    def kill9(self) -> None:
        """SIGKILL to every process of the server."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def restart(self) -> None:
        """Starts again, on the same port and store, once the killed one is gone."""
        assert self._process is not None
        await self._process.wait()
        await self.start()

    async def terminate(self) -> int:
        """SIGTERM; the exit status. A server that doesn't stop is killed, and an AssertionError raised."""
        process = self._process
        if process is None:
            return 0
        self._process = None
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            raise AssertionError(
                f"the proxy did not stop within 20 s of SIGTERM:\n{self.log()[-4_000:]}"
            ) from None

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def complaints(self) -> list[str]:
        """Lines of the log at level error or above that this test does not expect."""
        lines = [line for line in self.log().splitlines() if line.startswith("{")]
        said = [(json.loads(line), line) for line in lines]
        return [
            line
            for fields, line in said
            if fields.get("level") in ("error", "critical") and fields.get("event") not in self._may_say
        ]

    def sdk(self, key: str = KEY, **more: Any) -> openai.AsyncOpenAI:
        """The official SDK, without its own retries. Close it, or use it in `async with`."""
        return openai.AsyncOpenAI(base_url=self.base_url, api_key=key, max_retries=0, **more)

    def view(self, call_id: str) -> CallView:
        """The record of one call."""
        with self.engine.connect() as connection:
            found = call_view(connection, call_id)
        assert found is not None, f"call {call_id} is not recorded"
        return found

    def views(
        self, *, run: str | None = None, agent: str | None = None, status: str | None = None
    ) -> list[CallView]:
        """The records of calls that match, oldest first."""
        with self.engine.connect() as connection:
            rows = list_calls(
                connection, limit=10_000, oldest_first=True, run=run, agent=agent, status=status
            )
            return call_views(connection, [row.id for row in rows])

    def kinds(self, call_id: str) -> list[str]:
        """What was recorded of a call, in order."""
        query = select(records.c.kind).where(records.c.call_id == call_id).order_by(records.c.seq)
        with self.engine.connect() as connection:
            return [kind for (kind,) in connection.execute(query)]

    def writer_of(self, call_id: str) -> str:
        """Which process recorded a call."""
        with self.engine.connect() as connection:
            return (
                connection.execute(select(records.c.writer).where(records.c.call_id == call_id))
                .scalars()
                .all()[0]
            )

    def counters(self) -> dict[str, dict[str, int]]:
        """Every counter of the ledger, less what is 0."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(TABLES.counters)).mappings().all()
        return {row["key"]: {k: v for k, v in row.items() if k != "key" and v} for row in rows}

    def used(self, limit_id: str, unit: str) -> int:
        """What was used of `unit` (`micro_usd`, `tokens`, …) under a limit, in all its windows and scopes."""
        return self._sum(limit_id, f"used_{unit}")

    def held(self) -> int:
        """Holds that stand."""
        query = select(func.count()).select_from(TABLES.holds).where(TABLES.holds.c.expired_us.is_(None))
        with self.engine.connect() as connection:
            return connection.execute(query).scalar_one()

    def held_amounts(self) -> int:
        """Everything that any counter says is held, summed over all units: 0 where no call is in flight."""
        return sum(v for row in self.counters().values() for k, v in row.items() if k.startswith("held_"))

    def _sum(self, limit_id: str, column: str) -> int:
        return sum(
            row.get(column, 0) for key, row in self.counters().items() if key.split("|")[0] == limit_id
        )

    def refusals(self) -> dict[str, int]:
        """Counted refusals of unidentified callers, by reason."""
        found: dict[str, int] = {}
        with self.engine.connect() as connection:
            for row in list_refusals(connection, limit=1_000):
                found[row.reason] = found.get(row.reason, 0) + row.count
        return found

    def lapse(self) -> None:
        """As if the lease of every hold ran out now: what dead processes hold is due at once, not in 30 s."""
        holds = TABLES.holds
        with self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            connection.execute(holds.update().where(holds.c.expired_us.is_(None)).values(lease_until_us=0))

    async def settled(self) -> None:
        """Waits until no call is open and nothing is held."""
        await until(lambda: not self.views(status="open") and not self.held(), "every call has ended")

    def _writers(self) -> int:
        with self.engine.connect() as connection:
            return connection.execute(select(func.count()).select_from(writers)).scalar_one()


async def until(holds: Callable[[], Any], what: str, timeout_s: float = 20.0) -> None:
    """Polls `holds` (which may be async) until it is true; AssertionError of `what` after `timeout_s`."""
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                answer = holds()
                if asyncio.iscoroutine(answer):
                    answer = await answer
                if answer:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"within {timeout_s:g} s it did not come true that {what}") from None


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def ask(text: str = "hi", **more: Any) -> dict[str, Any]:
    """A request's body for model `m`."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def headers(key: str | None = KEY, **more: str) -> dict[str, str]:
    """Headers of a raw request; underscores in names become hyphens."""
    named = {name.replace("_", "-"): value for name, value in more.items()}
    return {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {}) | named
