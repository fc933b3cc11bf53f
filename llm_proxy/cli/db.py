"""`llm-proxy db`: the store's tables, and bringing them up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

import msgspec
import typer
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.archive.search_index import file_of
from llm_proxy.archive.search_sqlite import index_file
from llm_proxy.cli.options import ConfigOption, JsonOption
from llm_proxy.cli.output import NOT_FOUND, print_json, stop
from llm_proxy.cli.store import NO_RECORDS, load, place, reading, reason, revision
from llm_proxy.config import Config
from llm_proxy.records.engine import open_engine
from llm_proxy.records.ids import now_us
from llm_proxy.records.migrate import NewerStore, upgrade
from llm_proxy.retention.shrinking import serves, shrink, size

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


class StoreShrunk(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on disk, of the search index too."""

    store: str
    before: int
    after: int


@app.command()
def vacuum(config: ConfigOption = None, *, as_json: JsonOption = False) -> None:
    """Give the space of deleted content back to the disk: for a SQLite store that no proxy serves."""
    loaded = load(config)
    with reading(loaded) as connection:
        if connection is None:
            stop(NO_RECORDS, NOT_FOUND)
        if connection.dialect.name != "sqlite":
            stop(
                "PostgreSQL uses the space of what was deleted again by itself; "
                "VACUUM FULL gives it back, and locks each table meanwhile."
            )
        if serves(connection, now_us()):
            stop("A proxy serves this store, or did a moment ago: stop it, and try again in 15 seconds.")
        store = file_of(connection)
    files = [file for file in (store, index_file(store)) if file.exists()]
    before = size(files)
    try:
        for file in files:
            shrink(file)
    except (sqlite3.Error, OSError) as error:
        stop(f"The store {place(loaded)} can't be written anew: {error}")
    told = StoreShrunk(store=place(loaded), before=before, after=size(files))
    if as_json:
        print_json(told)
    else:
        typer.echo(f"{told.store}: {told.before / 1e6:,.1f} MB before, {told.after / 1e6:,.1f} MB now.")


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
