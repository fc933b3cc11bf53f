"""Lines of CSV (RFC 4180, but with bare line feeds) that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_LINES = 500


def text(value: str) -> str:
    """`value` as a cell. A spreadsheet would work out what begins like a formula: it gets an apostrophe."""
    return f"'{value}" if value.startswith(_FORMULA) else value


def lines(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> Iterator[str]:
    """The header and the rows, many lines at a time. An empty cell is no value."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for number, row in enumerate(rows, 1):
        writer.writerow(row)
        if number % _LINES == 0:
            yield out.getvalue()
            out.seek(0)
            out.truncate()
    yield out.getvalue()


def dollars(micro_usd: int) -> str:
    """Micro-dollars as an exact decimal number of dollars, without an exponent: `0.001234`."""
    whole, part = divmod(abs(micro_usd), 1_000_000)
    digits = f"{whole}.{part:06}".rstrip("0").rstrip(".")
    return f"-{digits}" if micro_usd < 0 else digits
