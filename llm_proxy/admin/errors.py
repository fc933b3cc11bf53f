"""What a question to the operators' side can come to besides an answer."""

from __future__ import annotations

import msgspec


class NotFound(Exception):
    """No such call, run, agent or key. The message says what was asked for and what to do."""


class Unclear(Exception):
    """The question has more than one answer, or can't be acted on as it was put."""


class Conflict(Exception):
    """It can't be done as things stand by now. The message says how they stand."""


class ErrorFacts(msgspec.Struct, frozen=True):
    """`code` is a `Kind`, `not_found` or `conflict`; `message` says what to do."""

    code: str
    message: str


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every refusal under `/admin`."""

    error: ErrorFacts
