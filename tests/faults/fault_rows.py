"""The fault matrix as a table: every way a target can fail, and what follows. `docs/failures.md` shows it.

Each model of the matrix has `retries: 1` and `breaker: {failures: 3, cool_down_s: 1200}`. The prompt is
counted as 8 tokens; a token of input costs a micro-dollar, one of output two.
"""

from __future__ import annotations

from dataclasses import dataclass

from routing.failures import MEANING, Charge, FailureKind

COOL_DOWN_S = 1200
THRESHOLD = 3

CLOSED = "stays closed"
COUNTED = "counted"
"""The third such failure in a row opens it for its cool-down."""
FAILED, BUSY, LATE = "upstream_failed", "upstream_unavailable", "upstream_timeout"
TOO_LONG, FILTERED = "context_length_exceeded", "content_filter"
STREAM, WHOLE = True, False
WORDS = "one two three"
_SHORT_S = 2.0
"""Long enough for whoever does answer, on a busy machine too."""
_CLOCKS = {
    "connect_timeout": "connect_s",
    "first_event_timeout": "first_event_s",
    "idle_timeout": "idle_s",
    "total_timeout": "total_s",
}


@dataclass(frozen=True)
class Row:
    """One fault, and what comes of it, whole and streamed alike."""

    name: str
    failure: str
    asked: int
    """Attempts at the failing target in one call: 2 where it's asked again."""
    onward: bool
    """Whether the next target is asked."""
    charged: int
    """Micro-dollars for all of these attempts together."""
    breaker: str | int
    """CLOSED, COUNTED, or the seconds for which the first failure opens it."""
    status: int | None
    """What the caller is answered if no other target answers. None: words had been streamed, and the error
    comes behind them."""
    code: str | None
    only: bool | None = None
    """Only where the reply is streamed (True) or whole (False)."""
    told: bool = False
    """The target said itself what the prompt was, before it failed."""

    @property
    def modes(self) -> tuple[bool, ...]:
        """Streamed, whole, or both."""
        only = True if self.status is None else self.only
        return (False, True) if only is None else (only,)

    @property
    def said(self) -> str:
        """What the caller had read by then."""
        return WORDS if self.status is None else ""

    @property
    def charge(self) -> Charge:
        return MEANING[FailureKind(self.failure)].charge

    @property
    def provider(self) -> str:
        return "anthropic" if "Anthropic" in self.name else "openai"

    @property
    def waits(self) -> bool:
        """Whether most of a call is waiting."""
        return bool(self.timeouts or self.said)

    @property
    def timeouts(self) -> dict[str, float]:
        """The clock that has to run out; all others have time."""
        return {_CLOCKS[self.failure]: _SHORT_S} if self.failure in _CLOCKS else {}


# fmt: off
ROWS = (
    #   what goes wrong                    recorded as            asked onward charged breaker the caller
    Row("connection refused",              "connect_refused",     2, True,   0, COUNTED, 502, FAILED),
    Row("certificate not trusted",         "tls",                 1, True,   0, COUNTED, 502, FAILED),
    Row("no TLS on the port",              "tls",                 1, True,   0, COUNTED, 502, FAILED),
    Row("unknown host name",               "dns",                 2, True,   0, COUNTED, 502, FAILED),
    Row("connection not accepted",         "connect_timeout",     2, True,   0, COUNTED, 502, FAILED),
    Row("slow first event",                "first_event_timeout", 1, True,   8, COUNTED, 504, LATE),
    Row("stall before a word",             "idle_timeout",        1, True,   8, COUNTED, 504, LATE),
    Row("stall mid-stream",                "idle_timeout",        1, False, 14, COUNTED, None, LATE),
    Row("total_s is over",                 "total_timeout",       1, False,  8, CLOSED,  504, LATE),
    Row("closed without an answer",        "cut",                 2, True,  16, COUNTED, 502, FAILED),
    Row("cut before a word",               "cut",                 2, True,  16, COUNTED, 502, FAILED, STREAM),
    Row("cut mid-stream",                  "cut",                 1, False, 14, COUNTED, None, FAILED),
    Row("body cut short",                  "truncated",           2, True,  16, COUNTED, 502, FAILED, WHOLE),
    Row("stream without an end marker",    "truncated",           2, True,  16, COUNTED, 502, FAILED, STREAM),
    Row("words without an end marker",     "truncated",           1, False, 14, COUNTED, None, FAILED),
    Row("malformed JSON",                  "malformed",           2, True,  16, COUNTED, 502, FAILED),
    Row("malformed event mid-stream",      "malformed",           1, False, 14, COUNTED, None, FAILED),
    Row("web page for a reply",            "malformed",           2, True,  16, COUNTED, 502, FAILED),
    Row("400",                             "bad_request",         1, False,  0, CLOSED,  400, None),
    Row("400 context length",              "context_length",      1, False,  0, CLOSED,  400, TOO_LONG),
    Row("400 content filter",              "content_filter",      1, False,  8, CLOSED,  400, FILTERED),
    Row("401",                             "auth",                1, True,   0, COUNTED, 502, FAILED),
    Row("403",                             "auth",                1, True,   0, COUNTED, 502, FAILED),
    Row("404",                             "not_found",           1, True,   0, CLOSED,  502, FAILED),
    Row("408",                             "request_timeout",     2, True,  16, COUNTED, 502, FAILED),
    Row("409",                             "conflict",            2, True,   0, CLOSED,  502, FAILED),
    Row("413",                             "too_large",           1, False,  0, CLOSED,  413, None),
    Row("422",                             "bad_request",         1, False,  0, CLOSED,  422, None),
    Row("429",                             "rate_limited",        2, True,   0, COUNTED, 503, BUSY),
    Row("429 Retry-After in seconds",      "rate_limited",        1, True,   0, 300,     503, BUSY),
    Row("429 Retry-After as a date",       "rate_limited",        1, True,   0, 420,     503, BUSY),
    Row("429 OpenAI resets",               "rate_limited",        1, True,   0, 600,     503, BUSY),
    Row("429 Anthropic resets",            "rate_limited",        1, True,   0, 900,     503, BUSY),
    Row("429 insufficient quota",          "quota_exhausted",     1, True,   0, COUNTED, 502, FAILED),
    Row("500",                             "server_error",        2, True,   0, COUNTED, 502, FAILED),
    Row("500 x-should-retry: false",       "server_error",        1, True,   0, COUNTED, 502, FAILED),
    Row("502",                             "server_error",        2, True,   0, COUNTED, 502, FAILED),
    Row("503",                             "server_error",        2, True,   0, COUNTED, 502, FAILED),
    Row("504",                             "gateway_timeout",     2, True,  16, COUNTED, 502, FAILED),
    Row("529 Anthropic",                   "overloaded",          2, True,   0, COUNTED, 503, BUSY),
    Row("OpenAI error in the reply",       "server_error",        2, True,   0, COUNTED, 502, FAILED),
    Row("OpenAI error mid-stream",         "server_error",        1, False, 14, COUNTED, None, FAILED),
    Row("Anthropic overload in the reply", "overloaded",          2, True,   0, COUNTED, 503, BUSY, WHOLE),
    Row("Anthropic overload at the start", "overloaded", 2, True, 44, COUNTED, 503, BUSY, STREAM, told=True),
    Row("Anthropic overload mid-stream",   "overloaded",          1, False, 26, COUNTED, None, BUSY),
)
# fmt: on
