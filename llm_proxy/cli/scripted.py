"""`llm-proxy scripted`: a scripted model on a port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def scripted(
    script: Annotated[
        Path | None, typer.Option(metavar="FILE", help="YAML (docs/scripted.md); else the demo's.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve a scripted model with OpenAI's API until SIGTERM: for trying an agent without a key or cost."""
    from llm_proxy.scripted.__main__ import main  # noqa: PLC0415 (its HTTP server takes a third of a second to load)

    named = ["--script", str(script)] if script else []
    raise typer.Exit(main([*named, "--port", str(port), "--host", host]))
