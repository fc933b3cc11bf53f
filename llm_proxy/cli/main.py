"""Puts the commands together."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llm_proxy.cli import (
    agents,
    approvals,
    audit,
    calls,
    db,
    holds,
    importing,
    keys,
    policy,
    retention,
    routes,
    runs,
    telemetry,
    webhooks,
)
from llm_proxy.cli.budgets import budgets
from llm_proxy.cli.check import check
from llm_proxy.cli.demo import demo
from llm_proxy.cli.init import init
from llm_proxy.cli.posture import posture
from llm_proxy.cli.prices import prices
from llm_proxy.cli.reconcile import reconcile
from llm_proxy.cli.refusals import refusals
from llm_proxy.cli.replay import replay
from llm_proxy.cli.scripted import scripted
from llm_proxy.cli.serve import serve
from llm_proxy.cli.spend import spend

app = typer.Typer(
    name="llm-proxy",
    help="The layer that answers for AI agents: who they are, what they may do and spend, what they did.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def everywhere(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The config, for whichever command follows.")
    ] = None,
) -> None:
    """Options that may stand before the command as well as after it."""
    if config is not None and isinstance(context.command, TyperGroup):
        context.default_map = _for_all(context.command, {"config": str(config)})


def _for_all(group: TyperGroup, defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: dict(defaults) | (_for_all(command, defaults) if isinstance(command, TyperGroup) else {})
        for name, command in group.commands.items()
    }


app.command()(init)
app.command()(serve)
app.command()(check)
app.command()(demo)
app.add_typer(agents.app, name="agents")
app.add_typer(keys.app, name="keys")
runs.app.command()(replay)
app.add_typer(runs.app, name="runs")
app.add_typer(calls.app, name="calls")
app.add_typer(routes.app, name="routes")
app.command()(prices)
app.command()(spend)
app.command()(budgets)
app.command()(reconcile)
app.command()(refusals)
app.add_typer(approvals.app, name="approvals")
app.add_typer(policy.app, name="policy")
app.command()(posture)
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(telemetry.app, name="telemetry")
app.add_typer(audit.app, name="audit")
app.add_typer(retention.app, name="retention")
app.add_typer(holds.app, name="holds")
app.add_typer(db.app, name="db")
app.add_typer(importing.app, name="import")
app.command()(scripted)


def main() -> None:
    """Runs the command that was given."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal or a pipe that can't show a character must not end the command.
            stream.reconfigure(errors="backslashreplace")
    app()
