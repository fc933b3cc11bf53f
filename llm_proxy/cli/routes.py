"""`llm-proxy routes`: how the targets are doing, and where a call would go and why."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from llm_proxy import wiring
from llm_proxy.admin.fleet import (
    Asked,
    BreakerLine,
    ProspectLine,
    RouteShown,
    TargetLine,
    route_shown,
    target_lines,
)
from llm_proxy.cli.options import ConfigOption, JsonOption, LimitOption
from llm_proxy.cli.output import Column, console, print_json, print_table
from llm_proxy.cli.store import load, reading
from llm_proxy.cli.text import count, line
from llm_proxy.records.ids import now_us
from routing.explain import Standing, span
from routing.health import Breaker

app = typer.Typer(help="Targets: how each is doing, and where a call would go.")

_COLUMNS = (
    Column("model"),
    Column("target", "bold", whole=True),
    Column("provider"),
    Column("state"),
    Column("rpm", right=True),
    Column("tpm", right=True),
    Column("in flight", right=True),
    Column("whole", right=True),
    Column("streamed", right=True),
    Column("failed"),
)
_STEPS = (
    Column("", right=True),
    Column("target", "bold", whole=True),
    Column("of model"),
    Column("provider"),
    Column("why"),
)
_UNCOUNTED = Text(
    "Prompts for this model are counted for agents with a budget of tokens or money; for others their length "
    "decides nothing here.",
    "dim",
)
_STYLES = {Breaker.CLOSED: "green", Breaker.OPEN: "bold red", Breaker.HALF_OPEN: "yellow"}


@app.callback(invoke_without_command=True)
def routes(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Those that may answer for this model only.")
    ] = None,
    config: ConfigOption = None,
    *,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Every target: its breaker, the last minute's traffic against its limits, latencies and failures.

    Told by the proxies that run on the store; without one, targets stand there without traffic.
    """
    if context.invoked_subcommand is not None:
        if config is not None:
            context.default_map = {context.invoked_subcommand: {"config": str(config)}}
        return
    loaded, now = load(config), now_us()
    with reading(loaded) as connection:
        table = wiring.routes(loaded, wiring.prices(loaded))
        lines = target_lines(table, connection, now, limit, model=model)
    if as_json:
        print_json(lines)
    else:
        print_table(_COLUMNS, (_row(target, now) for target in lines), "The config has no models.")


@app.command()
def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    run: Annotated[str, typer.Option(metavar="RUN", help="For a call of this run.")] = "",
    agent: Annotated[str, typer.Option(metavar="AGENT", help="Whose run it is.")] = "",
    tokens: Annotated[int, typer.Option(min=0, metavar="N", help="For a prompt of so many tokens.")] = 0,
    config: ConfigOption = None,
    *,
    stream: Annotated[bool, typer.Option("--stream", help="For a streamed call.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Which targets a call for the model would ask now, in which order, and why. Asks none of them."""
    loaded = load(config)
    with reading(loaded) as connection:
        table = wiring.routes(loaded, wiring.prices(loaded))
        shown = route_shown(table, connection, now_us(), Asked(model, agent, run, tokens, stream))
    if as_json:
        print_json(shown)
        return
    console().print(_heading(shown), soft_wrap=True)
    print_table(_STEPS, map(_step, shown.targets), "No target can answer for it.")
    if shown.tokens and not shown.counted:
        console().print(_UNCOUNTED, soft_wrap=True)
    if shown.wait_s != 0:
        console().print(_nobody(shown), soft_wrap=True)


def _row(target: TargetLine, now: int) -> list[str | Text]:
    return [
        target.model,
        target.target,
        target.provider,
        _state(target),
        _of(target.requests, target.rpm),
        _of(target.tokens, target.tpm),
        _of(target.in_flight, target.concurrency),
        _latency(target.whole_s),
        _latency(target.streamed_s),
        _failed(target, now),
    ]


def _state(target: TargetLine) -> Text:
    text = _breaker(target)
    for number, key in enumerate(target.api_keys, 1):
        if key.state is not Breaker.CLOSED:
            text.append("\n").append(f"key {number} ").append_text(_breaker(key))
    return text


def _breaker(breaker: BreakerLine | TargetLine) -> Text:
    text = Text(breaker.state.value.replace("_", " "), _STYLES[breaker.state])
    if breaker.state is Breaker.OPEN:
        text.append(f" for {span(breaker.open_for_s or 0)}", "not bold")
    return text.append(f" after {line(breaker.after)}", "not bold") if breaker.after else text


def _of(used: int, limit: int | None) -> str:
    return f"{used:,}" if limit is None else f"{used:,} of {limit:,}"


def _latency(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def _failed(target: TargetLine, now: int) -> str:
    """Of the attempts since the processes began, and the last failure."""
    if not target.attempts:
        return ""
    words = f"{target.failures:,} of {target.attempts:,} ({target.failures / target.attempts:.0%})"
    if target.last_failure_us is None:
        return words
    return f"{words}, {target.last_failure} {span(max(0, now - target.last_failure_us) / 1e6)} ago"


def _heading(shown: RouteShown) -> Text:
    text = Text.assemble("A call for ", (line(shown.model), "bold"))
    if shown.run_id:
        text.append(f" of run {line(shown.run_id)}, agent {line(shown.agent_id)}")
    if shown.tokens:
        text.append(f", with a prompt of {count(shown.tokens, 'token')}")
    if shown.stream:
        text.append(", streamed")
    stays = "runs stay with their target" if shown.affinity else "runs don't stay with a target"
    return text.append(f": strategy {shown.strategy}, {stays}.")


def _step(prospect: ProspectLine) -> list[str | Text]:
    turn = "" if prospect.turn is None else str(prospect.turn)
    why = Text(line(prospect.why))
    if prospect.standing is Standing.PASSED_OVER:
        why = Text("passed over: ", "yellow").append_text(why)
    elif prospect.standing is Standing.RESERVE:
        why.stylize("dim")
    return [turn, prospect.target, prospect.model, prospect.provider, why]


def _nobody(shown: RouteShown) -> Text:
    when = "" if shown.wait_s is None else f"; the first may be asked in {span(shown.wait_s)}"
    return Text(f"No target may be asked now{when}.", "bold red")
