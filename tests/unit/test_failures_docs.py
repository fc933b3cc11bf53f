"""docs/failures.md says what the fault matrix proves and what `MEANING` decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from routing.failures import MEANING, Charge, Evidence, FailureKind
from tests.faults.fault_rows import CLOSED, COUNTED, ROWS, STREAM, Row

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "failures.md"
UNTOLD = {FailureKind.CLIENT_GONE, FailureKind.SUPERSEDED}
"""What no target causes: a caller who left, and of two hedged attempts the one that came second."""
CHARGED = {
    Charge.NEVER: "nothing",
    Charge.MAYBE: "the prompt",
    Charge.USED: "the prompt, and words that came",
}


def _line(row: Row) -> str:
    """The row of the document's table."""
    only = "" if row.only is None else " (streamed)" if row.only is STREAM else " (whole)"
    breaker = f"opens for {row.breaker} s, as told" if isinstance(row.breaker, int) else row.breaker
    told = "an error in the stream" if row.status is None else str(row.status)
    cells = (
        row.name + only,
        f"`{row.failure}`",
        "yes" if row.asked > 1 else "no",
        "yes" if row.onward else "no",
        breaker,
        "the prompt, as told" if row.told else CHARGED[Charge.USED if row.said else row.charge],
        f"{told}, `{row.code}`" if row.code else f"{told} as it came",
    )
    return f"| {' | '.join(cells)} |"


def _table() -> list[str]:
    lines = DOCUMENT.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("| What goes wrong"))
    rest = lines[start + 2 :]
    return rest[: next(n for n, line in enumerate(rest) if not line.startswith("|"))]


def test_the_document_has_the_matrix() -> None:
    assert _table() == [_line(row) for row in ROWS]


def test_every_failure_of_a_target_is_in_the_matrix() -> None:
    assert {row.failure for row in ROWS} == set(FailureKind) - UNTOLD


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_matrix_is_what_the_meanings_say(row: Row) -> None:
    """Words that are out rule out both; a target that names a long wait, or forbids it, is not retried."""
    meaning = MEANING[FailureKind(row.failure)]
    assert row.onward == (meaning.fall_back and not row.said)
    told_not_to = isinstance(row.breaker, int) or "x-should-retry" in row.name
    assert (row.asked == 2) == (meaning.retry_same and not row.said and not told_not_to)
    assert (row.breaker == CLOSED) == (meaning.evidence is not Evidence.DOWN)
    assert row.breaker == COUNTED or row.breaker == CLOSED or row.failure == "rate_limited"
    assert (row.charged == 0) == (meaning.charge is Charge.NEVER and not row.said and not row.told)
