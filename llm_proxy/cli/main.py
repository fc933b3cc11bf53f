"""Puts the commands together."""

from __future__ import annotations

import typer

from llm_proxy.cli.check import check
from llm_proxy.cli.init import init
from llm_proxy.cli.serve import serve

app = typer.Typer(
    name="llm-proxy",
    help="The layer that answers for AI agents: who they are, what they may do and spend, what they did.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(init)
app.command()(check)
app.command()(serve)


def main() -> None:
    """The entry point of the console script."""
    app()
