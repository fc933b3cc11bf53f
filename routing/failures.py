"""Every way a try at a target can fail, and what each means for retry, fallback, breaker and money.

A failure is classified once, where it happens; everything after reads `MEANING`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from routing.retry_after import parse_retry_after as parse_retry_after
from routing.retry_after import retry_after_from as retry_after_from


class FailureKind(StrEnum):
    """Stable name of a failure, as it stands on a recorded attempt."""

    CONNECT_REFUSED = "connect_refused"
    DNS = "dns"
    TLS = "tls"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_EVENT_TIMEOUT = "first_event_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    """The call's own deadline passed."""
    CUT = "cut"
    """The connection closed before the reply's end."""
    TRUNCATED = "truncated"
    """Fewer bytes came than were announced, or a stream ended cleanly without its end marker."""
    MALFORMED = "malformed"
    BAD_REQUEST = "bad_request"
    AUTH = "auth"
    """401 or 403 of the target's key: ours, not the caller's."""
    NOT_FOUND = "not_found"
    REQUEST_TIMEOUT = "request_timeout"
    CONFLICT = "conflict"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXHAUSTED = "quota_exhausted"
    """A 429 that waiting can't cure: the account's credit is used up."""
    SERVER_ERROR = "server_error"
    GATEWAY_TIMEOUT = "gateway_timeout"
    OVERLOADED = "overloaded"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    CLIENT_GONE = "client_gone"
    SUPERSEDED = "superseded"
    """The other one of two hedged tries answered first."""


class Charge(StrEnum):
    """What a failed try may have cost.

    never: the target certainly did no billed work. maybe: it may have worked though nothing came; at least
    the prompt's estimate. used: part of a reply came; at least what was seen or the estimate, whichever
    is more.
    """

    NEVER = "never"
    MAYBE = "maybe"
    USED = "used"


class Evidence(StrEnum):
    """What a failure says about its target's health: down, alive (it answered), or nothing."""

    DOWN = "down"
    ALIVE = "alive"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Meaning:
    """What to do about a failure. `retry_same`: the same target may yet answer the same request.

    `fall_back` is to any other target; a prompt that is too long, or filtered, goes where its route says.
    """

    retry_same: bool
    fall_back: bool
    evidence: Evidence
    charge: Charge
    of_key: bool = False
    """It speaks of the API key: a target with several goes on with another."""


_DOWN, _ALIVE, _NONE = Evidence.DOWN, Evidence.ALIVE, Evidence.NONE
_NEVER, _MAYBE, _USED = Charge.NEVER, Charge.MAYBE, Charge.USED
_K = FailureKind

MEANING: dict[FailureKind, Meaning] = {
    #                         retry  fall back
    _K.CONNECT_REFUSED: Meaning(True, True, _DOWN, _NEVER),
    _K.DNS: Meaning(True, True, _DOWN, _NEVER),
    _K.TLS: Meaning(False, True, _DOWN, _NEVER),
    _K.CONNECT_TIMEOUT: Meaning(True, True, _DOWN, _NEVER),
    # A target that was silent for this long is not asked again: the next one answers sooner.
    _K.FIRST_EVENT_TIMEOUT: Meaning(False, True, _DOWN, _MAYBE),
    _K.IDLE_TIMEOUT: Meaning(False, True, _DOWN, _USED),
    # No time is left for anyone, and a short deadline is not the target's fault.
    _K.TOTAL_TIMEOUT: Meaning(False, False, _NONE, _MAYBE),
    _K.CUT: Meaning(True, True, _DOWN, _USED),
    _K.TRUNCATED: Meaning(True, True, _DOWN, _USED),
    _K.MALFORMED: Meaning(True, True, _DOWN, _USED),
    _K.BAD_REQUEST: Meaning(False, False, _ALIVE, _NEVER),
    _K.AUTH: Meaning(False, True, _DOWN, _NEVER, of_key=True),
    _K.NOT_FOUND: Meaning(False, True, _ALIVE, _NEVER),
    # Azure's "manage costs" page: work that ended in 408, or in a content filter's 400, may be charged.
    _K.REQUEST_TIMEOUT: Meaning(True, True, _DOWN, _MAYBE),
    _K.CONFLICT: Meaning(True, True, _ALIVE, _NEVER),
    _K.TOO_LARGE: Meaning(False, False, _ALIVE, _NEVER),
    _K.RATE_LIMITED: Meaning(True, True, _DOWN, _NEVER, of_key=True),
    _K.QUOTA_EXHAUSTED: Meaning(False, True, _DOWN, _NEVER, of_key=True),
    _K.SERVER_ERROR: Meaning(True, True, _DOWN, _NEVER),
    _K.GATEWAY_TIMEOUT: Meaning(True, True, _DOWN, _MAYBE),
    _K.OVERLOADED: Meaning(True, True, _DOWN, _NEVER),
    _K.CONTEXT_LENGTH: Meaning(False, False, _ALIVE, _NEVER),
    _K.CONTENT_FILTER: Meaning(False, False, _ALIVE, _MAYBE),
    _K.CLIENT_GONE: Meaning(False, False, _NONE, _MAYBE),
    _K.SUPERSEDED: Meaning(False, False, _NONE, _MAYBE),
}

# Vendors' own words: OpenAI's and Azure's `code` and `type`, Anthropic's `type`, Google's `status`.
_BY_HINT: dict[str, FailureKind] = {
    "context_length_exceeded": _K.CONTEXT_LENGTH,
    "string_above_max_length": _K.CONTEXT_LENGTH,
    "content_filter": _K.CONTENT_FILTER,
    "content_policy_violation": _K.CONTENT_FILTER,
    "responsibleaipolicyviolation": _K.CONTENT_FILTER,
    "insufficient_quota": _K.QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": _K.QUOTA_EXHAUSTED,
    "billing_error": _K.QUOTA_EXHAUSTED,
    "rate_limit_exceeded": _K.RATE_LIMITED,
    "rate_limit_error": _K.RATE_LIMITED,
    "resource_exhausted": _K.RATE_LIMITED,
    "overloaded_error": _K.OVERLOADED,
    "overloaded": _K.OVERLOADED,
    "engine_overloaded": _K.OVERLOADED,
    "invalid_request_error": _K.BAD_REQUEST,
    "invalid_argument": _K.BAD_REQUEST,
    "authentication_error": _K.AUTH,
    "permission_error": _K.AUTH,
    "invalid_api_key": _K.AUTH,
    "not_found_error": _K.NOT_FOUND,
    "model_not_found": _K.NOT_FOUND,
    "request_too_large": _K.TOO_LARGE,
    "timeout_error": _K.GATEWAY_TIMEOUT,
    "api_error": _K.SERVER_ERROR,
    "server_error": _K.SERVER_ERROR,
    "internal_server_error": _K.SERVER_ERROR,
}

_BY_STATUS: dict[int, FailureKind] = {
    401: _K.AUTH,
    402: _K.QUOTA_EXHAUSTED,
    403: _K.AUTH,
    404: _K.NOT_FOUND,
    408: _K.REQUEST_TIMEOUT,
    409: _K.CONFLICT,
    413: _K.TOO_LARGE,
    429: _K.RATE_LIMITED,
    504: _K.GATEWAY_TIMEOUT,
    529: _K.OVERLOADED,
}

# A hint may only sharpen its status, never contradict it: a 400 stays the caller's, whatever its text says.
_SHARPER: dict[FailureKind, frozenset[FailureKind]] = {
    _K.BAD_REQUEST: frozenset({_K.CONTEXT_LENGTH, _K.CONTENT_FILTER}),
    _K.TOO_LARGE: frozenset({_K.CONTEXT_LENGTH}),
    _K.AUTH: frozenset({_K.CONTENT_FILTER, _K.QUOTA_EXHAUSTED}),
    _K.RATE_LIMITED: frozenset({_K.QUOTA_EXHAUSTED, _K.OVERLOADED}),
    _K.SERVER_ERROR: frozenset({_K.OVERLOADED, _K.RATE_LIMITED, _K.QUOTA_EXHAUSTED}),
}


def classify_status(status: int, code: str = "", type_: str = "") -> FailureKind:
    """The kind of an HTTP error status (>= 400), by status first, then by the vendor's code or type.

    A redirect or any other status that no model API answers with counts as `malformed`.
    """
    kind = _BY_STATUS.get(status)
    if kind is None:
        kind = _K.BAD_REQUEST if 400 <= status < 500 else _K.SERVER_ERROR if status >= 500 else _K.MALFORMED
    sharper = _SHARPER.get(kind)
    if sharper is not None:
        for hint in (code, type_):
            hinted = _BY_HINT.get(hint.lower())
            if hinted is not None and hinted in sharper:
                return hinted
    return kind


def classify_in_band(code: str = "", type_: str = "") -> FailureKind:
    """The kind of an error that came inside a reply whose status was 200. Unknown words: `server_error`."""
    for hint in (code, type_):
        if hint.isdecimal() and len(hint) == 3:
            return classify_status(int(hint), type_=type_)
        kind = _BY_HINT.get(hint.lower())
        if kind is not None:
            return kind
    return _K.SERVER_ERROR
