"""What a question to the operators' side can come to besides an answer."""

from __future__ import annotations

import msgspec


class NotFound(Exception):
    """No such call, run, agent or key. The message says what was asked for and what to do."""


class Unclear(Exception):
    """The question has more than one answer, or can't be acted on as it was put."""


class ErrorFacts(msgspec.Struct, frozen=True):
    """`code` is a `Kind`, or `not_found`; `message` says what to do."""

    code: str
    message: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every refusal under `/admin`."""

    error: ErrorFacts
