"""One span of a window: the name that its counters' keys end in, and when it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Buckets(msgspec.Struct, frozen=True):
    """A rolling window around one of its buckets, the one that a call counts in.

    `earlier` are the buckets before it that a span of the window's length may share with it, oldest first,
    and `later` those after it in which others may be counting already. Where `head` is empty they are names,
    else the keys of counters. Times are Unix µs.
    """

    window: str
    start_us: int
    bucket_us: int
    earlier: tuple[str, ...]
    later: tuple[str, ...]
    head: str = ""

    def under(self, head: str) -> Buckets:
        """The same with the keys of counters that begin with `head`."""
        earlier, later = (tuple([head + name for name in names]) for names in (self.earlier, self.later))
        return Buckets(self.window, self.start_us, self.bucket_us, earlier, later, head)

    def later_by(self, now_us: int) -> tuple[str, ...]:
        """`later`, and on past the bucket of `now_us`: none that can't share a span with this one."""
        late = len(self.later)
        count = min(len(self.earlier), max(0, (now_us - self.start_us) // self.bucket_us) + late)
        if count <= late:
            return self.later
        starts = (self.start_us + step * self.bucket_us for step in range(1, count + 1))
        return tuple([self.head + bucket_name(self.window, start) for start in starts])

    @property
    def near(self) -> tuple[str, ...]:
        """The last of `earlier`, in which others may still be counting as if they were the current one."""
        return self.earlier[-len(self.later) :]

    def leaves_us(self, step: int = 0) -> int:
        """When the bucket `step` after this one (before it, where negative) is in no span any more."""
        return self.start_us + (step + len(self.earlier) + 1) * self.bucket_us


class WindowSpan(msgspec.Struct, frozen=True):
    """One span of a window. `key` names it for ever; `resets_us` is its end in Unix µs, None for no end.

    At every instant from the one it was asked for until `resets_us`, the window answers with the same key.
    A rolling window's span is one bucket, with the others around it.
    """

    key: str
    resets_us: int | None
    buckets: Buckets | None = None


def bucket_name(window: str, start_us: int) -> str:
    """What the bucket of a rolling window that begins at `start_us` (a whole second) is called."""
    return f"{window}:{EPOCH + timedelta(microseconds=start_us):%Y-%m-%dT%H:%M:%S}Z"
