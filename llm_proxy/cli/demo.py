"""`llm-proxy demo`: a tool-using agent through the proxy, and what the proxy saw of it."""

from __future__ import annotations

import os
import secrets
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from llm_proxy.admin.budgets import budget_use
from llm_proxy.admin.reading import find_run
from llm_proxy.admin.run_told import run_steps
from llm_proxy.admin.runs import stands
from llm_proxy.cli.committing import note_shown
from llm_proxy.cli.demo_report import Played, Received, report, what_next
from llm_proxy.cli.output import complain, console, stop
from llm_proxy.cli.store import reading
from llm_proxy.config import load_config
from llm_proxy.demo.stage import DemoFailed, DirectoryTaken, command_name, last_lines, prepare, serving
from llm_proxy.identity.keyring import new_key
from llm_proxy.records.ids import now_us

if TYPE_CHECKING:
    from llm_proxy.demo.agent import Turn

RUN = "refund-A-1042"


def demo(
    directory: Annotated[
        Path | None,
        typer.Option("--dir", metavar="DIR", help="An empty directory to play in; else a new temporary one."),
    ] = None,
    otlp: Annotated[
        str | None,
        typer.Option(
            "--otlp", metavar="URL", help="A trace backend that gets the run's spans, by OTLP/HTTP."
        ),
    ] = None,
) -> None:
    """Run a tool-using agent through the proxy and show what the proxy saw. Needs no key and no network."""
    began = time.monotonic()
    where = (directory or Path(tempfile.mkdtemp(prefix="llm-proxy-demo-"))).absolute()
    config = where / "proxy.yaml"
    try:
        with _ended_by_signals():
            key = new_key()
            prepare(where, key, secrets.token_urlsafe(24), otlp)
            turns, refunds = _play(config, key)
            _tell(config, turns, refunds, time.monotonic() - began)
    except DirectoryTaken as error:
        stop(error)
    except DemoFailed as error:
        complain(error)
        complain(f"The server's log, {config.with_name('server.log')}, ends with:\n{last_lines(config)}")
        raise typer.Exit(1) from None
    except OSError as error:
        stop(f"{error.filename or where}: {error.strerror or error}")


def _play(config: Path, key: str) -> tuple[list[Turn], list[str]]:
    """The agent's turns, and the refunds that it made. Raises `DemoFailed`."""
    from openai import OpenAIError  # noqa: PLC0415 (the SDK takes a second to load, and no other command needs it)

    from llm_proxy.demo.agent import run_agent  # noqa: PLC0415 (as above)
    from llm_proxy.demo.tools import Desk  # noqa: PLC0415 (as above)

    desk, turns = Desk(), list["Turn"]()
    progress = Console(stderr=True, quiet=not sys.stderr.isatty())
    with progress.status("Starting the proxy") as status, serving(config) as origin:
        status.update("The agent reads the ticket")
        try:
            for turn in run_agent(f"{origin}/v1", key, RUN, desk):
                turns.append(turn)
                status.update(f"The agent works: {', '.join(turn.tools) or 'it answers the customer'}")
        except OpenAIError as error:
            raise DemoFailed(f"The agent's call failed: {error}") from error
    return turns, desk.refunds


def _tell(config: Path, turns: list[Turn], refunds: list[str], took_s: float) -> None:
    loaded = load_config(config, os.environ)
    with reading(loaded) as connection:
        if connection is None:
            raise DemoFailed("The proxy recorded nothing.")
        run = find_run(connection, RUN, None)
        steps = list(run_steps(connection, run, 50))
        standing = stands(loaded, connection, run, now_us())
        budgets = budget_use(loaded, connection, run, now_us())
    denied = [d.tool for step in steps for d in step.call.decisions if d.decision == "deny"]
    if len(steps) != len(turns) or "refund_create" not in denied or refunds:
        raise DemoFailed(
            f"The story went another way: {len(turns)} replies, {len(steps)} recorded, denied: {denied}."
        )
    played = Played(
        run=run,
        stands=standing,
        agent=loaded.agents.get(run.agent_id),
        steps=steps,
        replies=[Received(turn.tools, turn.streamed) for turn in turns],
        budgets=budgets,
        answer=turns[-1].text,
        took_s=took_s,
        command=command_name(),
        option=f" --config {shlex.quote(str(config))}",
        directory=config.parent,
    )
    note_shown(loaded, "demo", calls=[step.call.id for step in steps], run=run.stored.key)
    out = console()
    out.print(report(played))
    out.print(what_next(played), soft_wrap=True)


@contextmanager
def _ended_by_signals() -> Generator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end the command, so that the server is ended too.

    Raises SystemExit (128 + signal).
    """
    told = list[int]()

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        told.append(number)
        raise SystemExit(128 + number)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        # What is raised within a destructor is lost there, and some of the interpreter's own work wraps it.
        if told:
            raise SystemExit(128 + told[0])
