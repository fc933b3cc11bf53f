"""The closed list of ways a call can be refused or fail, and what each is on the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """Stable `code` of an error, as callers see it."""

    INVALID_REQUEST = "invalid_request"
    UNSUPPORTED_FEATURE = "unsupported_feature"
    INVALID_CREDENTIAL = "invalid_credential"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    AGENT_FROZEN = "agent_frozen"
    POLICY_DENIED = "policy_denied"
    MODEL_NOT_FOUND = "model_not_found"
    RUN_REQUIRED = "run_required"
    RUN_ENDED = "run_ended"
    FORBIDDEN_ROLE = "forbidden_role"
    BODY_TOO_LARGE = "body_too_large"
    BUDGET_EXCEEDED = "budget_exceeded"
    RATE_LIMITED = "rate_limited"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    ISSUER_UNAVAILABLE = "issuer_unavailable"
    UPSTREAM_TIMEOUT = "upstream_timeout"


STATUS: dict[Kind, int] = {
    Kind.INVALID_REQUEST: 400,
    Kind.UNSUPPORTED_FEATURE: 400,
    Kind.INVALID_CREDENTIAL: 401,
    Kind.MODEL_NOT_ALLOWED: 403,
    Kind.AGENT_FROZEN: 403,
    Kind.POLICY_DENIED: 403,
    Kind.MODEL_NOT_FOUND: 404,
    Kind.RUN_REQUIRED: 400,
    Kind.RUN_ENDED: 403,
    Kind.FORBIDDEN_ROLE: 403,
    Kind.BODY_TOO_LARGE: 413,
    Kind.BUDGET_EXCEEDED: 429,
    Kind.RATE_LIMITED: 429,
    Kind.UPSTREAM_FAILED: 502,
    Kind.UPSTREAM_UNAVAILABLE: 503,
    Kind.STORE_UNAVAILABLE: 503,
    Kind.ISSUER_UNAVAILABLE: 503,
    Kind.UPSTREAM_TIMEOUT: 504,
}


@dataclass(slots=True)
class ProxyError(Exception):
    """A refusal or failure that a caller is told about.

    `message` says what happened, which limit, rule or target it was, and what to do. It never holds a
    secret or an upstream's body. `status` is that of `kind` unless an upstream's own status passes on.
    `retry_after_s` becomes `retry-after`; `retryable=False` becomes `x-should-retry: false`.
    """

    kind: Kind
    message: str
    param: str | None = None
    retry_after_s: float | None = None
    retryable: bool = True
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    """An upstream's own error body, forwarded verbatim (its 400, 413 and 422 only)."""
    counted: bool = False
    """The refusal is counted in the store, by minute and reason."""

    def __post_init__(self) -> None:
        if not self.status:
            self.status = STATUS[self.kind]
        Exception.__init__(self, self.message)

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def failed_inside() -> ProxyError:
    """For what nobody foresaw: the log has it, and the caller learns where to look."""
    return ProxyError(
        Kind.UPSTREAM_FAILED,
        "The proxy failed inside; the call id in `x-call-id` finds it in the log.",
        status=500,
    )
