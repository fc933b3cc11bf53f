"""`llm-proxy runs replay`: serves what a run was answered to a live agent, and says where that diverges."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection

from llm_proxy.admin.reading import find_run
from llm_proxy.archive.agent_keys import active_key_hashes
from llm_proxy.archive.calls import each_view
from llm_proxy.archive.listings import RunRow, list_calls
from llm_proxy.cli.committing import note_shown
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption
from llm_proxy.cli.output import NOT_FOUND, complain, print_json, stop
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.config import Config
from llm_proxy.identity.keyring import hash_key
from llm_proxy.records.ids import now_us
from llm_proxy.records.runstate import RunKey
from llm_proxy.records.view import CallView
from llm_proxy.replaying.from_file import run_in
from llm_proxy.replaying.recorded import MOST_CALLS, NotReplayable, Run, run_of
from llm_proxy.replaying.report import Divergence, Report, summary, told
from llm_proxy.replaying.serve import Replay, Rules
from llm_proxy.replaying.server import listening, serve

_MAX_BODY = 32 << 20
"""Of a request, where no config says."""
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def replay(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", show_default=False)] = None,
    agent: AgentOption = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    speed: Annotated[
        float, typer.Option(min=0, max=1000, help="0 answers at once, 1 as fast as it was, 2 twice as fast.")
    ] = 0,
    linger: Annotated[
        float,
        typer.Option(min=0, max=86_400, help="Seconds for which it goes on answering behind the last call."),
    ] = 10,
    file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Replay what `runs export --content` wrote; no store is read.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = None,
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="End at the first divergence, with an error to the agent.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Serve a run's recorded replies to a live agent, in order, and say where it asks something else.

    It ends when every call was asked for, or with Ctrl-C. Exit status: 0 the agent followed the run to its
    end, 1 it diverged or stopped early. That content was read is recorded first.
    """
    recorded, keys, most = _source(run, agent, file, config)
    key = f"replay-{secrets.token_urlsafe(24)}"
    rules = Rules(keys=[hash_key(key), *keys], speed=speed, strict=strict, linger_s=linger, max_body=most)
    report = _serve(recorded, rules, host, port, key)
    if as_json:
        print_json(report)
    else:
        for line in summary(report):
            typer.echo(line)
    raise typer.Exit(0 if report.followed else NOT_FOUND)


def _source(
    run: str | None, agent: str | None, file: Path | None, config: Path | None
) -> tuple[Run, list[str], int]:
    """What is replayed, the hashes of the keys that its agent has now, and the most bytes of a request."""
    if file is not None:
        try:
            return run_in(file, run, agent), [], _MAX_BODY
        except NotReplayable as error:
            stop(error)
    if run is None:
        stop("Name the run, or a file of `llm-proxy runs export --content` with --file.")
    loaded = load(config)
    recorded, keys = _recorded(loaded, run, agent)
    key = RunKey(recorded.agent_id, recorded.run_id)
    note_shown(loaded, "runs replay", calls=[each.call.id for each in recorded.calls], run=key)
    return recorded, keys, loaded.server.max_body_mb << 20


def _recorded(config: Config, run_id: str, agent: str | None) -> tuple[Run, list[str]]:
    """The run with its content, and the hashes of the keys that its agent has now."""
    with reading(config) as connection:
        if connection is None:
            stop(f"No run {run_id!r} is recorded: {NO_RECORDS.lower()}", NOT_FOUND)
        found = find_run(connection, run_id, agent)
        issued = active_key_hashes(connection, found.agent_id, now_us())
        try:
            run = run_of(found.run_id, found.agent_id, _views(connection, found))
        except NotReplayable as error:
            stop(error)
    known = config.agents.get(found.agent_id)
    return run, [*issued, *(key.sha256 for key in known.keys if known)] if known else issued


def _views(connection: Connection, run: RunRow) -> Iterator[CallView]:
    rows = list_calls(connection, limit=MOST_CALLS + 1, agent=run.agent_id, run=run.run_id, oldest_first=True)
    return each_view(connection, [row.id for row in rows])


def _serve(run: Run, rules: Rules, host: str, port: int, key: str) -> Report:
    try:
        opened = listening(host, port)
    except OSError as error:
        stop(f"{host}:{port} can't be listened on: {error.strerror or error}")
    bound: int = opened.getsockname()[1]
    origin = f"http://{f'[{host}]' if ':' in host else host}:{bound}"

    def ready() -> None:
        complain(f"Replaying run {run.run_id} of agent {run.agent_id}, {len(run.calls)} calls, at {origin}")
        complain(f"  OPENAI_BASE_URL={origin}/v1 or ANTHROPIC_BASE_URL={origin}")
        also = " (a key of the agent does, too)" if len(rules.keys) > 1 else ""
        complain(f"  the key for this replay: {key}{also}")
        if run.left_out:
            complain(f"  {run.left_out} calls of the run are of kinds that are not replayed")
        if host not in _LOOPBACK:
            complain(f"  {host} can be reached from outside: whoever has the key reads the run's replies")

    def tell(divergence: Divergence) -> None:
        for each in told(divergence):
            complain(each)

    async def run_it() -> Report:
        return await serve(Replay(run, rules, tell), opened, ready)

    with suppress(KeyboardInterrupt):
        return asyncio.run(run_it())
    raise typer.Exit(NOT_FOUND)
