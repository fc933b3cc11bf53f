"""`llm-proxy serve`: checks the configuration, then runs the server."""

from __future__ import annotations

import gc
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from llm_proxy.cli.check import examine
from llm_proxy.cli.output import complain
from llm_proxy.config import find_config
from llm_proxy.logs import set_up_logs
from llm_proxy.records.engine import open_engine
from llm_proxy.records.migrate import NewerStore, upgrade


def serve(
    config: Annotated[Path | None, typer.Option(help="The proxy.yaml to serve.")] = None,
    host: Annotated[str | None, typer.Option(help="Overrides server.host.")] = None,
    port: Annotated[int | None, typer.Option(help="Overrides server.port; 0 takes a free one.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the port.")] = 1,
) -> None:
    """Serve the proxy until SIGTERM or Ctrl-C; calls in flight get `server.drain_s` to end."""
    report = examine(config, os.environ)
    for issue in (*report.errors, *report.warnings):
        complain(issue)
    if report.errors or report.config is None:
        raise typer.Exit(2)
    loaded = report.config
    if loaded.policy is None:
        typer.echo("no policy: tool calls are recorded, and none is judged", err=True)
    os.environ["LLM_PROXY_CONFIG"] = str(find_config(config, os.environ))
    set_up_logs(loaded.log.level.value)
    _allow_connections()
    if workers > 1:
        _migrate(loaded.store.get_secret_value())
    if workers == 1:  # else the application stands in processes of its own
        gc.disable()  # until it does: see `llm_proxy.app`
    uvicorn.run(
        "llm_proxy.app:create",
        factory=True,
        host=host or loaded.server.host,
        port=loaded.server.port if port is None else port,
        workers=workers,
        loop="uvloop",
        http="llm_proxy.http.guarded:GuardedProtocol",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(loaded.server.drain_s)),
    )


def _allow_connections() -> None:
    """As many open files as the system lets this process have: connections are files."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _migrate(store: str) -> None:
    engine = open_engine(store)
    try:
        upgrade(engine)
    except NewerStore as error:
        complain(str(error))
        raise typer.Exit(2) from None
    finally:
        engine.dispose()
