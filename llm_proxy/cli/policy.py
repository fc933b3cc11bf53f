"""`llm-proxy policy`: testing a policy, explaining what it said, and trying another on the record."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from llm_proxy.admin import policy as policies
from llm_proxy.admin import policy_shown
from llm_proxy.admin.policy_tools import tool_lines
from llm_proxy.cli import policy_text
from llm_proxy.cli.check import approver_groups
from llm_proxy.cli.committing import note_shown
from llm_proxy.cli.newfile import write_new
from llm_proxy.cli.options import AgentOption, ConfigOption, JsonOption, LimitOption, RunOption
from llm_proxy.cli.output import NOT_FOUND, complain, print_json, stop
from llm_proxy.cli.store import NO_RECORDS, load, reading
from llm_proxy.config import Config
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.load import PolicyErrors, load_policy
from llm_proxy.policy.told_cases import told_cases
from llm_proxy.records.ids import now_us
from llm_proxy.records.runstate import RunKey

app = typer.Typer(
    help="Work on a policy: test it, explain it, try it on what was recorded.", no_args_is_help=True
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A policy file.")]
PolicyOption = Annotated[
    Path | None,
    typer.Option(
        "--policy", metavar="FILE", help="Judge by this file; else the config's.", show_default=False
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Calls from then on: 24h, 7d, a date or an ISO 8601 time, in UTC.",
        show_default=False,
    ),
]
UntilOption = Annotated[
    str | None, typer.Option(metavar="TIME", help="Calls before then.", show_default=False)
]


@app.command("test")
def run_tests(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A policy file; else the config's.")
    ] = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Run the tests in a policy file. Exits with 1 where one fails, or where a rule is hit by none."""
    path = file or _path(load(config))
    found = told_cases(_policy(path), path)
    if as_json:
        print_json(found)
    else:
        policy_text.print_tested(found)
    if not found.passed:
        raise typer.Exit(NOT_FOUND)


@app.command()
def show(
    since: Annotated[
        str, typer.Option(metavar="TIME", help="What its rules did since: 24h, 7d, a date.")
    ] = "7d",
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """The policy that the config names, and how often each of its rules spoke."""
    loaded = load(config)
    path = _path(loaded)
    found = _policy(path, loaded)
    with reading(loaded) as connection:
        shown = policy_shown.policy_shown(connection, found, path.name, since, now_us())
    if as_json:
        print_json(shown)
    else:
        policy_text.print_policy(shown, limit)


@app.command()
def tools(
    config: ConfigOption = None,
    *,
    limit: LimitOption = 1_000,
    as_json: JsonOption = False,
) -> None:
    """The tools that the policy knows: tier, effect, risk, who may use them, how arguments are checked."""
    loaded = load(config)
    found = tool_lines(_policy(_path(loaded), loaded))[:limit]
    if as_json:
        print_json(found)
    else:
        policy_text.print_tools(found)


@app.command()
def explain(
    call: Annotated[str, typer.Argument(metavar="CALL", help="The call's id, as in `x-call-id`.")],
    tool_call: Annotated[
        str | None,
        typer.Option(metavar="ID", help="This tool call of its reply only.", show_default=False),
    ] = None,
    policy: PolicyOption = None,
    config: ConfigOption = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Judge a recorded call again: the rule, every rule that hit, labels and counters as they were.

    Exits with 1 where judging again doesn't come to what is on record, as under another policy it needn't.
    """
    loaded = load(config)
    found = _policy(policy or _path(loaded), loaded)
    with reading(loaded) as connection:
        if connection is None:
            stop(NO_RECORDS, NOT_FOUND)
        shown = policies.explain(connection, loaded, found, call, tool_call)
    note_shown(loaded, "policy explain", calls=[shown.call_id], run=RunKey(shown.agent_id, shown.run_id))
    if as_json:
        print_json(shown)
    else:
        policy_text.print_explanation(shown)
    if not shown.reproduced:
        raise typer.Exit(NOT_FOUND)


@app.command()
def simulate(
    file: FileArgument,
    since: SinceOption = None,
    until: UntilOption = None,
    agent: AgentOption = None,
    run: RunOption = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """What FILE would have said of recorded tool calls. Exits with 0, whatever it would have said."""
    wish = policies.SimulationWish(since=since, until=until, agent=agent, run=run, limit=limit)
    loaded = load(config)
    _show(_simulated(loaded, _policy(file, loaded), wish), as_json=as_json)


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A policy file.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The one to compare with it.")],
    since: SinceOption = None,
    until: UntilOption = None,
    agent: AgentOption = None,
    run: RunOption = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Which recorded tool calls OLD and NEW decide differently. Exits with 1 where there is one."""
    wish = policies.SimulationWish(since=since, until=until, agent=agent, run=run, limit=limit)
    loaded = load(config)
    found = _simulated(loaded, _policy(new, loaded), wish, _policy(old, loaded))
    _show(found, as_json=as_json)
    if found.changed:
        raise typer.Exit(NOT_FOUND)


@app.command()
def learn(
    runs: Annotated[
        str | None,
        typer.Option(metavar="RUNS", help="Of these runs only, with commas between.", show_default=False),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    agent: AgentOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here, to a file that doesn't exist yet.")
    ] = None,
    config: ConfigOption = None,
    *,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Read at most N calls.")] = 100_000,
) -> None:
    """Propose a policy from recorded tool calls: every tool with a schema, and waiting for a person.

    It has no value of any argument in it. Exits with 1 where no tool call is on record.
    """
    wish = policies.SimulationWish(since=since, until=until, agent=agent)
    wanted = [name.strip() for name in (runs or "").split(",") if name.strip()]
    with reading(load(config)) as connection, _progress("Reading calls") as told:
        if connection is None:
            stop(NO_RECORDS, NOT_FOUND)
        text, learned = policies.learned(connection, wanted, wish, now_us(), limit, told)
    if not learned.tools:
        stop("No tool call is on record there: name other runs, or an earlier --since.", NOT_FOUND)
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_new(out, text)
    complain(policy_text.learned(learned, out))


def _simulated(
    loaded: Config, new: Policy, wish: policies.SimulationWish, old: Policy | None = None
) -> policies.Simulated:
    with reading(loaded) as connection, _progress("Judging calls again") as told:
        found = policies.simulate(connection, loaded, new, wish, now_us(), old, told)
    if connection is not None:
        # A policy can be made to ask what stands in arguments.
        calls = dict.fromkeys([change.call_id for change in found.changes])
        note_shown(loaded, "policy simulate" if old is None else "policy diff", calls=list(calls))
    return found


def _show(found: policies.Simulated, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        policy_text.print_simulated(found)


def _path(loaded: Config) -> Path:
    if loaded.policy is None:
        stop(f"{loaded.path} names no policy: add `policy:` there, or name a file.")
    return loaded.policy


def _policy(path: Path, loaded: Config | None = None) -> Policy:
    try:
        return load_policy(path, approver_groups(loaded) if loaded else None)
    except PolicyErrors as errors:
        stop("\n".join(map(str, errors.issues)))


@contextmanager
def _progress(what: str) -> Generator[policies.Progress]:
    """A bar on a terminal, nothing in a pipe."""
    shown = Console(stderr=True, quiet=not sys.stderr.isatty())
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=shown, transient=True) as bar:
        task = bar.add_task("calls", total=None)
        yield lambda done, whole: bar.update(task, completed=done, total=whole)
