"""Times as people write them."""

from __future__ import annotations

from llm_proxy.admin.errors import Unclear
from llm_proxy.spend.question import BadQuestion, moment


def when(text: str | None, now_us: int) -> int | None:
    """Unix µs of `7d` (ago), a date or an ISO 8601 time. Raises `Unclear`."""
    try:
        return None if text is None else moment(text, now_us)
    except BadQuestion as error:
        raise Unclear(str(error)) from None
