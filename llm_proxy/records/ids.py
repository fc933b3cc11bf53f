"""UUIDv7 (RFC 9562): time-ordered ids, so that indexes grow at one end."""

from __future__ import annotations

import os
import time

_AT_ONCE = 256
"""Ids for which randomness is fetched at a time: a fetch is a system call that drops the interpreter lock."""

_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"

_stock: list[str] = []
os.register_at_fork(after_in_child=_stock.clear)


def now_us() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


def uuid7(at_us: int) -> str:
    """A UUIDv7 for `at_us`; 74 random bits follow the millisecond. Safe to call from any thread."""
    random = _random()
    millis = f"{at_us // 1000:012x}"
    variant = "89ab"[int(random[3], 16) & 3]
    return f"{millis[:8]}-{millis[8:12]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"


def writer_id(at_us: int) -> str:
    """The id of a writer that starts at `at_us`: 18 letters and digits, the time first, then 40 random bits.

    Short, because it stands in every record.
    """
    number = at_us // 1000 << 40 | int.from_bytes(os.urandom(5))
    return "".join([_CROCKFORD[number >> shift & 31] for shift in range(85, -1, -5)])


def _random() -> str:
    """Ten random bytes in hex, each given out once."""
    try:
        return _stock.pop()
    except IndexError:
        fresh = os.urandom(10 * _AT_ONCE).hex()
        _stock.extend(fresh[start : start + 20] for start in range(0, len(fresh), 20))
        return _stock.pop()
