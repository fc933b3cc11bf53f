"""Sums by key, of which there may be more than fit in memory: those that do not, wait in a temporary file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

_MOST_IN_MEMORY = 50_000
_ASKED = 500


class Tallies:
    """`width` integers for each key, added up. Use it in `with`: the file goes with it."""

    def __init__(self, width: int, most: int = _MOST_IN_MEMORY) -> None:
        self._width = width
        self._most = most
        self._sums: dict[str, list[int]] = {}
        # An empty name is a private file that SQLite deletes, and keeps in memory while it's small.
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        names = [f"c{at}" for at in range(width)]
        self._file.execute(f"CREATE TABLE sums (key TEXT PRIMARY KEY, {', '.join(names)}) WITHOUT ROWID")
        marks = ", ".join("?" * (width + 1))
        adds = ", ".join(f"{name} = {name} + excluded.{name}" for name in names)
        self._add = f"INSERT INTO sums VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET {adds}"  # noqa: S608

    def __enter__(self) -> Tallies:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, key: str, figures: Iterable[int]) -> None:
        sums = self._sums.get(key)
        if sums is None:
            if len(self._sums) >= self._most:
                self._spill()
            sums = self._sums[key] = [0] * self._width
        for at, figure in enumerate(figures):
            sums[at] += figure

    def take(self, keys: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The sums of `keys`, those that have any; they are forgotten."""
        self._spill()
        found: dict[str, tuple[int, ...]] = {}
        for start in range(0, len(keys), _ASKED):
            some = keys[start : start + _ASKED]
            marks = ", ".join("?" * len(some))
            rows = self._file.execute(f"SELECT * FROM sums WHERE key IN ({marks})", some)  # noqa: S608
            found |= {row[0]: row[1:] for row in rows}
            self._file.execute(f"DELETE FROM sums WHERE key IN ({marks})", some)  # noqa: S608
        return found

    def rest(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """What nobody took, by key."""
        self._spill()
        for row in self._file.execute("SELECT * FROM sums ORDER BY key"):
            yield row[0], row[1:]

    def _spill(self) -> None:
        if not self._sums:
            return
        self._file.execute("BEGIN")
        self._file.executemany(self._add, [(key, *sums) for key, sums in self._sums.items()])
        self._file.execute("COMMIT")
        self._sums.clear()
