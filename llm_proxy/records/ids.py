"""UUIDv7 (RFC 9562): time-ordered ids, so that indexes grow at one end."""

from __future__ import annotations

import os
import time


def now_us() -> int:
    """Microseconds since the Unix epoch."""
    return time.time_ns() // 1000


def uuid7(at_us: int) -> str:
    """A UUIDv7 for `at_us`; 74 random bits follow the millisecond."""
    random = os.urandom(10).hex()
    millis = f"{at_us // 1000:012x}"
    variant = "89ab"[int(random[3], 16) & 3]
    return f"{millis[:8]}-{millis[8:12]}-7{random[:3]}-{variant}{random[4:7]}-{random[7:19]}"
