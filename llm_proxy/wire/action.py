"""`POST /v1/actions/check`: what an agent or a tool is about to do, without a model that proposed it.

It is read like a request of any dialect, so that it is placed, judged and recorded in the same way. There is
no upstream: the frames that the other functions read never come.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import Frame, Unreadable
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire import untooled
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import errors
from llm_proxy.wire.request import MessageFacts, WireRequest
from llm_proxy.wire.spans import Edit, object_spans
from llm_proxy.wire.sse import SseFrame

PATH = "/v1/actions/check"
MAX_BODY = 262_144
MAX_WAIT_S = 60
_MOST_ID, _MOST_TOOL, _MOST_TEXT = 256, 256, 65_536
_EXAMPLE = '{"tool": "mail_send", "arguments": {"to": "ada@example.com"}}'


class Asked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body. `arguments` is an object, or its JSON text."""

    tool: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")
    run_id: str = ""
    tool_call_id: str = ""
    user_text: str = ""
    """What the person wrote that led to this."""
    wait_s: float = 0
    """How long the answer may wait for a person's approval."""
    parent_run_id: str = ""


class ActionRequest(WireRequest, frozen=True, kw_only=True):
    """`messages` holds what the user wrote, if anything, as JSON text."""

    asked: Asked
    arguments: str
    """As JSON text, unparsed and unjudged."""


_asked = msgspec.json.Decoder(Asked).decode
_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_text = msgspec.json.Decoder(str).decode


def parse(body: bytes) -> ActionRequest:
    """Raises `ProxyError(invalid_request)`, which names the field."""
    try:
        spans = object_spans(body, _members(body))  # of two `tool`s another reader might take the other
        asked = _asked(body)
        raw = bytes(asked.arguments)
        arguments = _text(raw) if raw.startswith(b'"') else raw.decode()
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _invalid(f"The body is no action to check, such as {_EXAMPLE}: {error}.") from None
    _checked(asked)
    said = (spans["user_text"],) if asked.user_text else ()
    return ActionRequest(
        body=body,
        model="",
        messages=tuple([body[start:end] for start, end in said]),
        message_spans=said,
        messages_key="user_text",
        spans=spans,
        max_output=0,
        run=asked.run_id,
        asked=asked,
        arguments=arguments,
    )


def message_facts(raw: bytes) -> MessageFacts:
    """What the user wrote, which is all that a request says beside the action. Raises `ProxyError`."""
    try:
        text = _text(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _invalid("user_text is no text.", "user_text") from None
    return MessageFacts(role="user", texts=(text,), user_text=text)


def _checked(asked: Asked) -> None:
    for name, value in (
        ("tool_call_id", asked.tool_call_id),
        ("run_id", asked.run_id),
        ("parent_run_id", asked.parent_run_id),
    ):
        if len(value) > _MOST_ID or not value.isprintable() or value != value.strip():
            raise _invalid(f"{name} must be at most {_MOST_ID} characters that print.", name)
    if not 0 < len(asked.tool) <= _MOST_TOOL or not asked.tool.isprintable():
        raise _invalid(f"tool must be 1 to {_MOST_TOOL} characters, all of which print.", "tool")
    if len(asked.user_text) > _MOST_TEXT:
        raise _invalid(f"user_text is over {_MOST_TEXT:,} characters: send less.", "user_text")
    if not 0 <= asked.wait_s <= MAX_WAIT_S:
        raise _invalid(f"wait_s must be from 0 to {MAX_WAIT_S}.", "wait_s")


def _invalid(message: str, param: str | None = None) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, param=param, retryable=False)


def _edits(
    request: WireRequest, model: str, cap: tuple[str, int] | None = None, *, ask_usage: bool = False
) -> list[Edit]:
    return []


def _nothing(body: bytes) -> Frame:
    return Frame(body, (Unreadable("An action has no reply"),))


def _no_frame(sse: SseFrame) -> Frame:
    return _nothing(sse.raw)


ACTION = Dialect(
    name="action",
    path="",
    upstream_path="",
    operation="execute_tool",
    generates=False,
    priced=False,
    parse=parse,
    message_facts=message_facts,
    upstream_edits=_edits,
    read_body=_nothing,
    read_frame=_no_frame,
    edit_body=untooled.edit_body,
    edit_frames=untooled.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
    signed=untooled.signed,
)
