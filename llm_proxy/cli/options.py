"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The config; else $LLM_PROXY_CONFIG, else ./proxy.yaml.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, metavar="N", help="Show at most N.")]
AgentOption = Annotated[
    str | None, typer.Option("--agent", metavar="AGENT", help="Of this agent only.", show_default=False)
]
RunOption = Annotated[
    str | None, typer.Option("--run", metavar="RUN", help="Of this run only.", show_default=False)
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the record.", show_default=False)]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url", help="The running proxy; else server.host and server.port of the config.", show_default=False
    ),
]


def only(name: str, metavar: str, of: str) -> typer.models.OptionInfo:
    """An option that narrows a listing down."""
    return typer.Option(name, metavar=metavar, help=of, show_default=False)
