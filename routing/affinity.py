"""Which target answered a run last: its prompt cache is warm there.

One per process. A run that another process serves starts there anew, but for weighted targets, where the
run's name itself decides (`strategies.Weighted`).
"""

from __future__ import annotations

from collections import OrderedDict

WARM_S = 600.0
"""Prompt caches are kept for five minutes to an hour by those who sell them."""
_MOST = 20_000


class Affinity:
    """The last target of each run, by the model asked for; bounded, the longest unused goes first."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], tuple[str, float]] = OrderedDict()

    def note(self, run: str, model: str, key: str, now: float) -> None:
        self._last[run, model] = key, now
        self._last.move_to_end((run, model))
        if len(self._last) > _MOST:
            self._last.popitem(last=False)

    def target(self, run: str, model: str, now: float) -> str | None:
        """The key of the target that answered last, while its cache may be warm."""
        found = self._last.get((run, model))
        return found[0] if found is not None and now - found[1] < WARM_S else None
