"""Rolling windows: any span of a length, wherever it begins, counted in buckets."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import tzinfo

from budgets.spans import HOUR_US, MINUTE_US, SECOND_US, Buckets, WindowSpan, bucket_name

SHORTEST_US = MINUTE_US
LONGEST_US = 366 * 24 * HOUR_US
ROLLING = "a rolling window such as 90m, 24h, 30d or 4w, from 1m to 366d"
"""How such a window is written, for messages."""
_BUCKETS = 32
_LATE_US = 10 * SECOND_US
"""How much later than another process one may count what it admitted: its clock is behind, or it waited for
the store. Within that, each sees what the other counts."""
_NAME = re.compile(r"([1-9][0-9]{0,6})([mhdw])")
_UNIT_US = {"m": MINUTE_US, "h": HOUR_US, "d": 24 * HOUR_US, "w": 7 * 24 * HOUR_US}


@dataclass(frozen=True, slots=True)
class Rolling:
    """The last `length_us`, at every instant. The zone is not asked for: a day of it is 24 hours.

    Time is cut into buckets of 1/32 of the length, rounded up to whole seconds and aligned to the epoch. A
    call counts in the bucket of its admission, and what is checked is the sum over every bucket that the
    span which ends in it may touch. So no span of the length holds more than the maximum, and what is over
    is forgotten up to one bucket late.
    """

    zone: tzinfo
    name: str
    length_us: int
    per_run: bool = False
    bucket_us: int = field(init=False)
    earlier: int = field(init=False)
    later: int = field(init=False)

    def __post_init__(self) -> None:
        bucket_us = _up(self.length_us, _BUCKETS * SECOND_US) * SECOND_US
        object.__setattr__(self, "bucket_us", bucket_us)
        object.__setattr__(self, "earlier", _up(self.length_us, bucket_us))
        object.__setattr__(self, "later", _up(_LATE_US, bucket_us))

    def span(self, now_us: int, run_id: str | None) -> WindowSpan:
        start = now_us - now_us % self.bucket_us
        buckets = Buckets(
            self.name,
            start,
            self.bucket_us,
            self._names(start, -self.earlier, 0),
            self._names(start, 1, self.later + 1),
        )
        return WindowSpan(bucket_name(self.name, start), start + self.bucket_us, buckets)

    def leaves_us(self, start_us: int) -> int:
        """When the bucket that begins at `start_us` is in no span any more."""
        return start_us + (self.earlier + 1) * self.bucket_us

    def _names(self, start_us: int, first: int, end: int) -> tuple[str, ...]:
        return tuple([bucket_name(self.name, start_us + step * self.bucket_us) for step in range(first, end)])


def rolling_us(name: str) -> int | None:
    """The length that `name` writes (`90m`, `24h`, `30d`, `4w`) in µs; None where it is no such name.

    Raises ValueError for a length out of bounds.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    length_us = int(found[1]) * _UNIT_US[found[2]]
    if not SHORTEST_US <= length_us <= LONGEST_US:
        raise ValueError(f"a rolling window lasts from 1m to 366d, not {name!r}")
    return length_us


def _up(figure: int, step: int) -> int:
    return -(-figure // step)
