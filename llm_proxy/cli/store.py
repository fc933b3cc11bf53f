"""Reading commands' view of the config and the store. They create nothing and change nothing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from llm_proxy.admin.errors import NotFound, Unclear
from llm_proxy.cli.output import NOT_FOUND, stop
from llm_proxy.config import Config, ConfigErrors, find_config, load_config
from llm_proxy.records.engine import BUSY_MS, open_engine
from llm_proxy.records.migrate import status

NO_RECORDS = "No records yet."


def load(option: Path | None) -> Config:
    """The config, or the end of the command with every error in it."""
    try:
        return load_config(find_config(option, os.environ), os.environ)
    except ConfigErrors as errors:
        stop("\n".join(map(str, errors.issues)))


@contextmanager
def reading(config: Config) -> Generator[Connection | None]:
    """A connection whose reads all see one moment; None where nothing was ever recorded.

    Ends the command with one line where the store can't be read, and where what was looked for is not there.
    """
    url = make_url(config.store.get_secret_value())
    try:
        if _absent(url):
            yield None
            return
        engine = _reader(url)
        try:
            yield from _connected(engine)
        finally:
            engine.dispose()
    except NotFound as error:
        stop(error, NOT_FOUND)
    except Unclear as error:
        stop(error)
    except (SQLAlchemyError, OSError) as error:
        stop(f"The store {place(config)} can't be read: {reason(error)}")


def revision(config: Config) -> tuple[str | None, str]:
    """The store's revision, None where it has none, and the newest; else as `reading`."""
    url = make_url(config.store.get_secret_value())
    engine = create_engine("sqlite://") if _absent(url) else _reader(url)
    try:
        return status(engine)
    except (SQLAlchemyError, OSError) as error:
        stop(f"The store {place(config)} can't be read: {reason(error)}")
    finally:
        engine.dispose()


def place(config: Config) -> str:
    """Where the store is, without anything secret."""
    url = make_url(config.store.get_secret_value())
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"postgresql://{url.host or '(socket)'}/{url.database or ''}"


def reason(error: Exception) -> str:
    """Why the store can't be used, on one line."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    text = str(cause).strip() or type(cause).__name__
    return text.splitlines()[0]


def _absent(url: URL) -> bool:
    if url.get_backend_name() != "sqlite":
        return False
    path = Path(url.database or "")
    return not path.exists() or path.stat().st_size == 0


def _connected(engine: Engine) -> Generator[Connection | None]:
    current, head = status(engine)
    if current is None:
        yield None
        return
    if current != head:
        stop(
            f"The store is at revision {current} and this version reads {head}: "
            "`llm-proxy db upgrade` brings an older store up to date."
        )
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN")
        yield connection


def _reader(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        return create_engine("sqlite://", creator=lambda: _open_sqlite(url), poolclass=NullPool)
    return open_engine(url, readers=1).execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


def _open_sqlite(url: URL) -> sqlite3.Connection:
    """Opened for writing, so that the log's files are tidied up at the end; it writes nothing."""
    path = quote(str(Path(url.database or "").absolute()))
    connection = sqlite3.connect(
        f"file:{path}?mode=rw", uri=True, timeout=BUSY_MS / 1000, isolation_level=None
    )
    connection.execute("PRAGMA query_only=ON")
    return connection
