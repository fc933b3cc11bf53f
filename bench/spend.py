"""How long questions about a million calls take, on SQLite and on a real PostgreSQL.

Run as `python -m bench.spend`. It fills a store with calls of thirty days (50 agents, 20 models, 200 users,
their tags and tools), whose daily sums are written by the product's own code, and then asks what
`llm-proxy spend`, `budgets` and `reconcile` ask. `--mixed` lets every agent use every model for every user,
so that hardly two calls of a day share a row of the sums: the worst case.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, insert, text
from typer.testing import CliRunner

from bench.spend_calls import AGENTS, MODELS, USERS, Made, made
from budgets import Amount, Hold, Op, Settle, SqlLedger, Subject
from llm_proxy import wiring
from llm_proxy.admin.budgets import BudgetFilter, budget_lines
from llm_proxy.admin.spend import Wish, focus_csv, spend_shown, spent
from llm_proxy.cli.main import app
from llm_proxy.config import Config, load_config
from llm_proxy.records.engine import open_engine
from llm_proxy.records.ids import now_us
from llm_proxy.records.migrate import upgrade
from llm_proxy.records.statements import Statements, summed
from llm_proxy.records.tables import calls, records
from llm_proxy.spend.question import Filters
from llm_proxy.spend.reconcile import reconcile
from llm_proxy.spend.rollup import tool_rows
from tests.postgres import running_postgres

_CHUNK = 5_000
_ROUNDS = 3
_QUESTIONS: dict[str, Wish] = {
    "spend --by agent,day --since 30d": Wish(by="agent,day", since="30d"),
    "spend --by agent": Wish(),
    "spend --by run --since 30d": Wish(by="run", since="30d"),
    "spend --by user --since 30d": Wish(by="user", since="30d"),
    "spend --by model,target --since 30d": Wish(by="model,target", since="30d"),
    "spend --by tag --since 30d": Wish(by="tag", since="30d"),
    "spend --by tag:env --since 30d": Wish(by="tag:env", since="30d"),
    "spend --by tool --since 30d": Wish(by="tool", since="30d"),
    "spend --by week --agent agent-7": Wish(by="week", where=Filters(agent="agent-7")),
    "spend --since 7d --compare": Wish(since="7d", compare=True),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--calls", type=int, default=1_000_000)
    options.add_argument("--mixed", action="store_true", help="every agent with every model and user")
    options.add_argument("--reconcile", action="store_true", help="write records too, and compare the books")
    options.add_argument("--only", choices=("sqlite", "postgresql"))
    chosen = options.parse_args()
    for kind in ("sqlite", "postgresql"):
        if chosen.only in (None, kind):
            with _store(kind) as (url, folder):
                _Bench(url, folder, chosen).run()


@contextmanager
def _store(kind: str) -> Generator[tuple[str, Path]]:
    """The URL of an empty store, and a folder."""
    with tempfile.TemporaryDirectory(prefix="bench-spend-") as name:
        folder = Path(name)
        if kind == "sqlite":
            yield f"sqlite:///{folder / 'store.db'}", folder
            return
        with running_postgres(folder / "data") as server:
            yield server.render_as_string(hide_password=False), folder


class _Bench:
    """One store, filled and asked."""

    def __init__(self, url: str, folder: Path, chosen: argparse.Namespace) -> None:
        self._chosen = chosen
        self._file = folder / "proxy.yaml"
        self._file.write_text(json.dumps(settings(url)))
        self._config: Config = load_config(self._file, os.environ)
        self._engine: Engine = open_engine(url)
        self._now = now_us()

    def run(self) -> None:
        began = time.perf_counter()
        upgrade(self._engine)
        with self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            self._fill(connection)
            self._budget(connection)
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("ANALYZE"))
            sums = connection.execute(text("SELECT count(*) FROM state_spend")).scalar_one()
        print(
            f"{self._engine.dialect.name}: {self._chosen.calls:,} calls in {sums:,} rows of sums, "
            f"written in {time.perf_counter() - began:.0f} s; seconds a question"
        )
        for name, wish in _QUESTIONS.items():
            self._time(name, lambda connection, wish=wish: _asked(connection, wish, self._now))
        self._time("spend --format focus --since 30d", self._focus)
        self._time(
            "budgets",
            lambda connection: len(
                budget_lines(self._config, connection, self._now, 100_000, BudgetFilter())
            ),
        )
        self._command()
        if self._chosen.reconcile:
            self._time("reconcile", self._reconcile, 1)
        self._engine.dispose()

    def _time(self, name: str, asked: Callable[[Connection], int], rounds: int = _ROUNDS) -> None:
        took: list[float] = []
        rows, cpu = 0, time.process_time()
        for _ in range(rounds):
            began = time.perf_counter()
            with self._engine.connect() as connection:
                rows = asked(connection)
            took.append(time.perf_counter() - began)
        used = (time.process_time() - cpu) / rounds
        told = f"worst {max(took):.3f}; {used:.3f} of CPU in this process; {rows:,} rows"
        print(f"  {name:40} {statistics.median(took):7.3f}   ({told})", flush=True)

    def _command(self) -> None:
        """The command line from its start in this process to its last byte."""
        words = ["spend", "--by", "agent,day", "--since", "30d", "--json", "--config", str(self._file)]
        began = time.perf_counter()
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
        print(f"  {'the same by the command line, --json':40} {time.perf_counter() - began:7.3f}")

    def _focus(self, connection: Connection) -> int:
        lines = focus_csv(connection, Wish(since="30d"), "prod", self._now)
        return sum(some.count("\n") for some in lines) - 1

    def _reconcile(self, connection: Connection) -> int:
        found = reconcile(connection, None, self._now)
        assert found.drift_count == 0, found.drifts[:3]
        return found.calls

    def _fill(self, connection: Connection) -> None:
        statements = Statements(self._engine.dialect)
        chunk: list[Made] = []
        for call in made(self._chosen.calls, self._now, mixed=self._chosen.mixed):
            chunk.append(call)
            if len(chunk) == _CHUNK:
                self._write(connection, statements, chunk)
                chunk = []
        self._write(connection, statements, chunk)

    def _write(self, connection: Connection, statements: Statements, chunk: list[Made]) -> None:
        """Calls in bulk; their sums as every settlement writes them."""
        if not chunk:
            return
        connection.execute(insert(calls), [_row(call) for call in chunk])
        spends = [call.spend for call in chunk]
        statements.spend.run(connection, [tuple(row) for row in summed(spends)])
        shares = [
            row for call, spend in zip(chunk, spends, strict=True) for row in tool_rows(spend, call.tools)
        ]
        statements.tool_spend.run(connection, [tuple(row) for row in summed(shares)])
        if self._chosen.reconcile:
            connection.execute(insert(records), [row for call in chunk for row in _records(call)])

    def _budget(self, connection: Connection) -> None:
        """Counters of every agent, of users and of tags; and, for a comparison, of all calls together."""
        ledger, book = SqlLedger(self._engine.dialect), wiring.limits(self._config)
        now, total = self._now, Amount()
        if self._chosen.reconcile:
            for call in made(self._chosen.calls, now, mixed=self._chosen.mixed):
                total += Amount(*call.used)
            row = {
                f"used_{name}": figure
                for name, figure in zip(total.__struct_fields__, total.values(), strict=True)
            }
            names = ", ".join(row)
            marks = ", ".join(f":{name}" for name in row)
            connection.execute(
                text(f"INSERT INTO state_counters (key, {names}) VALUES ('everyone|lifetime', {marks})"), row
            )
            return
        for number in range(2_000):
            subject = Subject(
                agent=f"agent-{number % AGENTS}",
                user=f"user-{number % USERS}@example.com",
                run=f"run-{number}",
                tags=(f"cost-centre={number % 12}",),
            )
            hold = Hold(
                f"{number:036}", book.bounds(subject, now), Amount(900, 90, 50, 40, 1), Amount(), now + 10**9
            )
            ops: list[Op] = [hold, Settle(hold.id, Amount(500, 50, 30, 20, 1))]
            ledger.apply(connection, ops, now)


def _asked(connection: Connection, wish: Wish, now: int) -> int:
    shown = spend_shown(spent(connection, wish, now), None)
    return len(shown.rows) + shown.left_out


def settings(url: str) -> dict[str, Any]:
    """A configuration of the agents, models and limits that the calls are of."""
    target = {"provider": "openai", "base_url": "http://127.0.0.1:9/v1"}
    return {
        "store": url,
        "models": {
            f"model-{n}": {"targets": [{"id": f"t-{n}", "model": "m", **target}]} for n in range(MODELS)
        },
        "prices": {"m": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6}},
        "agents": {
            f"agent-{n}": {"team": f"team-{n % 8}", "models": ["*"], "keys": [f"sk-agent-{n:020}"]}
            for n in range(AGENTS)
        },
        "budgets": [
            {"id": "everyone", "window": "lifetime", "usd": 10**6},
            {
                "id": "agent-day",
                "agent": "*",
                "window": "day",
                "usd": 100,
                "tokens": 10**9,
                "requests": 10**6,
            },
            {"id": "team-month", "team": "*", "window": "month", "usd": 10_000},
            {"id": "user-day", "user": "*", "window": "day", "tokens": 10**7},
            {"id": "tag-rolling", "tag": "cost-centre=*", "window": "7d", "usd": 1_000},
            {"id": "run", "agent": "*", "window": "run", "usd": 5, "tool_calls": 100},
        ],
    }


def _row(call: Made) -> dict[str, Any]:
    return {
        **call.by._asdict(),
        **call.close._asdict(),
        "run_id": call.run_id,
        "key_id": "k",
        "dialect": "openai_chat",
        "stream": False,
        "started_us": call.started_us,
    }


def _records(call: Made) -> list[dict[str, Any]]:
    kinds = (("call.opened", call.opened()), ("call.closed", call.closed()))
    return [
        {
            "writer": "w",
            "seq": 2 * call.number + at,
            "kind": kind,
            "at_us": call.started_us,
            "call_id": call.id,
            "run_id": call.run_id,
            "agent_id": call.by.agent_id,
            "body": body,
            "hash": b"",
        }
        for at, (kind, body) in enumerate(kinds)
    ]


if __name__ == "__main__":
    main()
