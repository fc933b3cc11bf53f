"""What records say of the days whose content retention deleted, and of what it kept for legal holds."""

from __future__ import annotations

from collections.abc import Mapping

from llm_proxy.audit.findings import Findings, Wrong
from llm_proxy.records.retention_bodies import Deleted, Stage


class Deletions:
    """By day (since 1970, UTC), the last word on each."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, Deleted]] = {}

    def take(self, told: Deleted, at_us: int) -> None:
        """A `content.deleted`. Raises TypeError for a time that is none."""
        before = self._last.get(told.epoch)
        if before is None or at_us >= before[0]:
            self._last[told.epoch] = at_us, told

    @property
    def days(self) -> set[int]:
        return set(self._last)

    def tell(self, there: Mapping[int, int], findings: Findings) -> None:
        """Names days of which less is `there` than holds kept: no more goes before a record says so.

        Of a day that is being worked on nothing can be said.
        """
        for epoch, (_, told) in sorted(self._last.items()):
            gone = told.kept - there.get(epoch, 0)
            if told.stage is Stage.DONE and gone > 0:
                what = f"{told.kept} rows of day {epoch} were kept for legal holds, and {gone} are gone"
                findings.note("blobs", f"day {epoch}", Wrong.DELETED, what)
