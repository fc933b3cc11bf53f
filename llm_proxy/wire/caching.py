"""Whether a request asks a vendor to keep its prompt in the cache for an hour, which costs more to write."""

from __future__ import annotations

import re

_HOUR = re.compile(rb'"(?:1|\\u0031)(?:h|\\u0068)"')


def asks_for_an_hour(body: bytes) -> bool:
    """Whether the text `1h` stands anywhere in the JSON, in any spelling: what else could a `ttl` be there.

    Reads every byte once, under 1 ns each: ask only where it matters. Words within a longer text don't count.
    """
    return _HOUR.search(body) is not None
