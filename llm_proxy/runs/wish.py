"""What is asked for when a run is opened or ended, read strictly. Pure."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import TypeVar

import msgspec

from budgets import Unit, micro_usd
from budgets.amounts import LARGEST
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.headers import checked_id
from llm_proxy.runs.envelope import Envelope
from llm_proxy.wire.spans import DuplicateKey, refuse_duplicates

LIFE_S = 3_600
LONGEST_LIFE_S = 86_400
MAX_PURPOSE = 1_000
MAX_WHY = 256
MAX_URL = 2_048
MAX_TOOLS = 200


class Trigger(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What set a run off: a ticket, an alert, a schedule."""

    kind: str = ""
    id: str = ""
    url: str = ""


class EnvelopeWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most that the run and all below it may use; an absent unit is left to the agent's own limits."""

    usd: Decimal | None = None
    tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    requests: int | None = None
    tool_calls: int | None = None
    writes: int | None = None
    concurrency: int | None = None
    tools: list[str] | None = None
    expires_s: int | None = None


class RunWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/runs`."""

    purpose: str
    envelope: EnvelopeWish = EnvelopeWish()
    parent: str = ""
    user: str = ""
    trigger: Trigger = Trigger()
    run_id: str = ""


class EndWish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/runs/{id}/end`."""

    why: str


T = TypeVar("T")

_run_wish = msgspec.json.Decoder(RunWish).decode
_end_wish = msgspec.json.Decoder(EndWish).decode
EXAMPLE = '{"purpose": "answer ticket 4711", "envelope": {"usd": 0.5, "requests": 40, "expires_s": 900}}'
_WHY = 'a reason, such as {"why": "the ticket was closed"}'


def read_run_wish(body: bytes) -> RunWish:
    """Raises `ProxyError(invalid_request)`, which names the field."""
    wish = _read(body, _run_wish, f"a wish for a run, such as {EXAMPLE}")
    trigger = wish.trigger
    _within("purpose", wish.purpose, MAX_PURPOSE, least=1)
    _within("trigger.kind", trigger.kind, 64)
    _within("trigger.url", trigger.url, MAX_URL)
    if trigger.url and not trigger.url.startswith(("https://", "http://")):
        raise _invalid("trigger.url is no http or https address: send one, or leave it out.", "trigger.url")
    ids = (("parent", wish.parent), ("user", wish.user), ("run_id", wish.run_id), ("trigger.id", trigger.id))
    for name, id_ in ids:
        checked_id(id_, name)
        if id_ != id_.strip():
            raise _invalid(f"{name} begins or ends with a space: send it without.", name)
    return wish


def read_end_wish(body: bytes) -> EndWish:
    """Raises `ProxyError(invalid_request)`."""
    wish = _read(body, _end_wish, _WHY)
    _within("why", wish.why, MAX_WHY, least=1)
    return wish


def envelope_of(wish: EnvelopeWish) -> Envelope:
    """Raises `ProxyError(invalid_request)` for what is no maximum, and for tools that can't be names."""
    maximum: dict[Unit, int] = {}
    for unit in Unit:
        asked: Decimal | int | None = getattr(wish, unit.value)
        if asked is not None:
            maximum[unit] = _maximum(unit, asked)
    tools = wish.tools
    if tools is not None:
        if len(tools) > MAX_TOOLS:
            raise _invalid(f"envelope.tools lists over {MAX_TOOLS} names: use globs.", "envelope.tools")
        for tool in tools:
            _within("envelope.tools", tool, 256, least=1)
    return Envelope(maximum=maximum, tools=None if tools is None else tuple(dict.fromkeys(tools)))


def life_s(wish: EnvelopeWish) -> int:
    """Seconds that the run is to last. Raises `ProxyError(invalid_request)`."""
    life = LIFE_S if wish.expires_s is None else wish.expires_s
    if not 1 <= life <= LONGEST_LIFE_S:
        raise _invalid(f"envelope.expires_s must be from 1 to {LONGEST_LIFE_S}.", "envelope.expires_s")
    return life


def _maximum(unit: Unit, asked: Decimal | int) -> int:
    field = f"envelope.{unit.value}"
    if isinstance(asked, Decimal):
        try:
            return micro_usd(asked)
        except ValueError as error:
            raise _invalid(f"{field}: {error}.", field) from None
    least = int(unit is Unit.CONCURRENCY)
    if not least <= asked <= LARGEST:
        raise _invalid(f"{field} must be a whole number from {least} to {LARGEST}.", field)
    return asked


def _read(body: bytes, decode: Callable[[bytes], T], what: str) -> T:
    try:
        refuse_duplicates(body)
        return decode(body)
    except (DuplicateKey, msgspec.DecodeError) as error:
        raise _invalid(f"The body is not {what}: {error}.") from None
    except (ValueError, RecursionError):
        raise _invalid(f"The body is no JSON: send {what}.") from None


def _within(name: str, text: str, most: int, least: int = 0) -> None:
    if not least <= len(text.strip()) <= len(text) <= most or not text.isprintable():
        raise _invalid(f"{name} must be {least} to {most} characters, all of which print.", name)


def _invalid(message: str, param: str | None = None) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, param=param, retryable=False)
