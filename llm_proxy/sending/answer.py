"""What a caller is told when no target answered."""

from __future__ import annotations

import math

import msgspec

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.upstream.provider import UpstreamFailure
from routing.failures import MEANING, FailureKind
from routing.plan import Exhausted, Stop

PASSED_ON = frozenset({400, 413, 422})
"""Statuses of an upstream that are the caller's to hear, body and all."""
_RETRIEVAL = frozenset({404, 405, 409, 410, 415, 416})
"""Statuses that are the caller's too where it names a thing of its own: a file, a stored response."""
_LATE = frozenset({FailureKind.FIRST_EVENT_TIMEOUT, FailureKind.IDLE_TIMEOUT, FailureKind.TOTAL_TIMEOUT})
_BUSY = frozenset({FailureKind.RATE_LIMITED, FailureKind.OVERLOADED})


def unanswered(exchange: Exchange, step: Exhausted, failure: UpstreamFailure | None) -> ProxyError:
    """The error for a call whose plan has nowhere left to go; `failure` is that of its last attempt."""
    name = exchange.model
    if failure is None:
        return _unasked(name, step)
    where = f"target {exchange.target!r} of model {name!r}"
    if _is_the_callers(exchange, failure):
        return _refused(exchange, failure, where)
    tried = f"after {len(exchange.attempts)} attempt{'s' if len(exchange.attempts) != 1 else ''}"
    message = (
        f"No target of model {name!r} answered {tried}; the last, {exchange.target!r}: {failure.detail}."
    )
    if step.stop is Stop.DEADLINE or failure.kind in _LATE:
        return ProxyError(Kind.UPSTREAM_TIMEOUT, message)
    if failure.kind in _BUSY:
        wait = step.retry_after_s or failure.retry_after_s or 1  # the soonest, whoever said it
        return ProxyError(Kind.UPSTREAM_UNAVAILABLE, message, retry_after_s=wait)
    return ProxyError(Kind.UPSTREAM_FAILED, message, retry_after_s=step.retry_after_s)


def _unasked(name: str, step: Exhausted) -> ProxyError:
    """No target was asked at all."""
    if step.stop is Stop.DEADLINE:
        return ProxyError(
            Kind.UPSTREAM_TIMEOUT,
            f"The call's deadline passed before a target of model {name!r} was asked. Allow it more time.",
        )
    wait = step.retry_after_s or 1.0
    if step.stop is Stop.LIMITED:
        return ProxyError(
            Kind.RATE_LIMITED,
            f"Every target of model {name!r} is at its own limit (rpm, tpm or concurrency). "
            f"Try again in {math.ceil(wait)} s, or have an operator add targets or raise their limits.",
            retry_after_s=wait,
        )
    return ProxyError(
        Kind.UPSTREAM_UNAVAILABLE,
        f"Every target of model {name!r} is resting after failures. Try again in {math.ceil(wait)} s.",
        retry_after_s=wait,
    )


def _is_the_callers(exchange: Exchange, failure: UpstreamFailure) -> bool:
    if exchange.resumed is not None:  # the caller never asked to go on with a cut reply
        return False
    if exchange.upstream_path and failure.status in _RETRIEVAL:
        return True
    return failure.status in PASSED_ON and not MEANING[failure.kind].fall_back


class _Words(msgspec.Struct):
    message: str = ""


class _Told(msgspec.Struct):
    error: _Words | str | None = None


_told = msgspec.json.Decoder(_Told).decode


def _refused(exchange: Exchange, failure: UpstreamFailure, where: str) -> ProxyError:
    """The upstream's own refusal: its body where the caller reads that dialect, else what it says."""
    body = failure.body if exchange.upstream is exchange.dialect else None
    message = f"The {where} refused the request with status {failure.status}"
    words = "" if body is not None else _message(failure.body or b"")
    return ProxyError(
        Kind.INVALID_REQUEST,
        f"{message}: {words}" if words else f"{message}.",
        status=failure.status or 0,
        body=body,
        retryable=False,
    )


def _message(body: bytes) -> str:
    try:
        error = _told(body).error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    return (error.message if isinstance(error, _Words) else error or "")[:2000]
