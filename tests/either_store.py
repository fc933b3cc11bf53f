"""An empty store of each kind, by its URL: a SQLite file, and a database of a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import URL

SQLITE_FIRST = pytest.mark.parametrize(
    "store", ["sqlite", pytest.param("postgresql", marks=pytest.mark.soak)], indirect=True
)
"""For a test that takes long: PostgreSQL's turn is in the long lane."""
POSTGRESQL_FIRST = pytest.mark.parametrize(
    "store", ["postgresql", pytest.param("sqlite", marks=pytest.mark.soak)], indirect=True
)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
        return
    from tests.postgres import fresh_database  # noqa: PLC0415 (pytest must load it first, as a plugin)

    server: URL = request.getfixturevalue("postgres_server")
    with ExitStack() as stack:
        yield stack.enter_context(fresh_database(server)).render_as_string(hide_password=False)
