"""`llm-proxy db`: the store's tables, and bringing them up to date."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import typer
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.cli.options import ConfigOption, JsonOption
from llm_proxy.cli.output import NOT_FOUND, print_json, stop
from llm_proxy.cli.store import load, place, reason, revision
from llm_proxy.config import Config
from llm_proxy.records.engine import open_engine
from llm_proxy.records.migrate import NewerStore, upgrade

app = typer.Typer(help="The store's tables.", no_args_is_help=True)


class StoreStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`revision` is null where the store holds nothing yet; `newest` is the one that this version uses."""

    store: str
    revision: str | None
    newest: str
    current: bool


@app.command()
def status(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Whether the store's tables are those of this version: exit 0 if so, else 1. Changes nothing."""
    loaded = load(config)
    found, newest = revision(loaded)
    told = StoreStatus(store=place(loaded), revision=found, newest=newest, current=found == newest)
    if as_json:
        print_json(told)
    elif found is None:
        typer.echo(
            f"{told.store}: nothing is there yet; `llm-proxy serve` or `llm-proxy db upgrade` makes it."
        )
    elif told.current:
        typer.echo(f"{told.store}: up to date, at revision {found}.")
    else:
        typer.echo(
            f"{told.store}: at revision {found}, and this version has {newest}: `llm-proxy db upgrade`."
        )
    if not told.current:
        raise typer.Exit(NOT_FOUND)


@app.command("upgrade")
def upgrade_(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Make the store's tables, or bring them up to date; `serve` does this by itself."""
    loaded = load(config)
    with _writable(loaded) as engine:
        now = upgrade(engine)
    if as_json:
        print_json(StoreStatus(store=place(loaded), revision=now, newest=now, current=True))
    else:
        typer.echo(f"{place(loaded)}: up to date, at revision {now}.")


@contextmanager
def _writable(config: Config) -> Generator[Engine]:
    engine = open_engine(config.store.get_secret_value())
    try:
        yield engine
    except NewerStore as error:
        stop(error)
    except (SQLAlchemyError, OSError) as error:
        stop(f"The store {place(config)} can't be written: {reason(error)}")
    finally:
        engine.dispose()
