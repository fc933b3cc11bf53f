"""OpenAI Responses, tool calls: which items the client is to run, and when two of them say the same."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

import msgspec

from llm_proxy.wire.members import NULL, to_object
from llm_proxy.wire.openai_responses import schema
from llm_proxy.wire.spans import DuplicateKey, refuse_duplicates
from llm_proxy.wire.toolids import fitting

_SERVER_RUN = frozenset(
    {
        "web_search_call",
        "file_search_call",
        "code_interpreter_call",
        "image_generation_call",
        "mcp_call",
        "mcp_list_tools",
    }
)
_ACTS = frozenset({"computer_call", "local_shell_call", "shell_call", "apply_patch_call", "tool_search_call"})
_WORDS = frozenset({"message", "reasoning", "compaction"})
_APPROVAL = "mcp_approval_request"
_LONGEST_NAME = 64

_ESCAPED_LETTER = re.compile(rb"\\u00[567]")

_text = msgspec.json.Decoder(str).decode


class OutputCall(NamedTuple):
    """A call that the client is asked to run. `arguments` as in `chat.events.CallDelta`."""

    type: str
    id: str
    name: str
    arguments: str
    custom: bool


def full_name(namespace: str | None, name: str | None) -> str:
    """The one name of a tool that stands in a namespace (or at an MCP server): `crm__get_customer`."""
    return fitting(f"{namespace}__{name or ''}", _LONGEST_NAME) if namespace else name or ""


def client_call(item: schema.Called, raw: bytes) -> OutputCall | None:
    """The call that an item (`raw` its bytes) asks of the client; None where it asks for none.

    A computer, shell, patch or tool-search call is named by its type, its arguments are the JSON of what it
    is to do. A request to approve an MCP server's tool counts as the call it would set off. An item of an
    unknown type that ends in `_call`, or has what a call has, is taken for a call, its arguments being the
    whole item: better judged in vain than not at all.
    """
    type_ = item.type or ""
    id_ = item.call_id or item.id or ""
    match type_:
        case "function_call":
            return OutputCall(
                type_, id_, full_name(item.namespace, item.name), string(item.arguments), custom=False
            )
        case "custom_tool_call":
            return OutputCall(
                type_, id_, full_name(item.namespace, item.name), string(item.input), custom=True
            )
        case "mcp_approval_request":
            name = full_name(item.server_label, item.name)
            return OutputCall(type_, item.id or "", name, string(item.arguments), custom=False)
        case _ if server_tool(item) or not (type_.endswith("_call") or _acts_unnamed(item)):
            return None
        case _:
            acts = _acts(item) if type_ in _ACTS else raw
            compact = msgspec.json.format(acts, indent=-1).decode("utf-8", "replace")
            return OutputCall(type_, id_, type_.removesuffix("_call"), compact, custom=False)


def _acts_unnamed(item: schema.Called) -> bool:
    """Whether an item whose type nobody knows looks like something that a client might run."""
    if (item.type or "") in _WORDS or (item.type or "").endswith("_output"):
        return False
    return bool(string(item.arguments) or string(item.input))


def server_tool(item: schema.Called) -> str:
    """The name of the tool that the provider ran itself; empty for every other item."""
    type_ = item.type or ""
    if type_ == "mcp_call":
        return full_name(item.server_label, item.name)
    hosted = type_ == "shell_call" and ((item.environment and item.environment.type) or "").startswith(
        "container"
    )
    if type_ in _SERVER_RUN or hosted or (type_ == "tool_search_call" and item.execution == "server"):
        return type_.removesuffix("_call")
    return ""


def writes_arguments(call: OutputCall) -> bool:
    """Whether the call's arguments are written by the model as text, and so may come in pieces."""
    return call.type in ("function_call", "custom_tool_call", _APPROVAL)


def string(raw: msgspec.Raw) -> str:
    """A string's text; nothing for null; any other value's own JSON text."""
    data = bytes(raw)
    if data == NULL:
        return ""
    return _text(data) if data.startswith(b'"') else data.decode("utf-8", "replace")


def mentions_calls(data: bytes) -> bool:
    """Whether a call may be in it; an escaped letter may be one of the word's."""
    return (
        b"_call" in data
        or b"mcp_approval" in data
        or (b"\\u00" in data and _ESCAPED_LETTER.search(data) is not None)
    )


def twins(data: bytes) -> str:
    """Why an event or body could be read in another way than it was, or nothing.

    Parsers differ on which of two equal keys they keep. A quote inside a string is escaped, so that the bytes
    `"type"` are a key or a whole value: what has each key of a plain event once needs no second parse.
    """
    if (
        data.count(b'"type"') == 1
        and data.count(b'"delta"') == 1
        and data.count(b'"output_index"') == 1
        and data.count(b'"item_id"') == 1
        and b'"item"' not in data
        and b'"response"' not in data
        and b"\\u" not in data
    ):
        return ""
    try:
        refuse_duplicates(data)
    except (ValueError, RecursionError) as error:
        return str(error)
    return ""


def same(one: str, other: str, *, custom: bool) -> bool:
    """Whether two arguments say the same: the same text or, where they are JSON, the same document.

    Numbers are compared as they are spelt. A document that repeats a key is the same as no other. No
    arguments are an empty object.
    """
    if one == other:
        return True
    if custom:
        return False
    try:
        return _document(one or "{}") == _document(other or "{}")
    except (ValueError, RecursionError):
        return False


def is_document(arguments: str) -> bool:
    """Whether the text is a whole JSON document, so that nothing can follow it."""
    try:
        _document(arguments)
    except (ValueError, RecursionError):
        return False
    return True


def matching(position: int, id_: str, ids: Mapping[int, str], taken: Collection[int]) -> int | None:
    """The index of the announced call that the one at `position` of a final output repeats, if any.

    `ids` are the announced calls' ids by index. Calls without an id are told by their place.
    """
    found = [index for index, other in sorted(ids.items()) if other == id_ and index not in taken]
    if position in found:
        return position
    return found[0] if found and id_ else None


def _acts(item: schema.Called) -> bytes:
    """What a built-in tool is to do: its one object, or an object of all that the item says."""
    given = {
        key: bytes(value)
        for key, value in (
            ("action", item.action),
            ("actions", item.actions),
            ("operation", item.operation),
            ("arguments", item.arguments),
        )
        if bytes(value) not in (NULL, b"[]")
    }
    alone = next(iter(given.values())) if len(given) == 1 else b""
    return alone if alone.startswith(b"{") else to_object(given)


def _number(text: str) -> tuple[str, str]:
    """A number as it is spelt, unlike any value that JSON has (in Python `1 == True`)."""
    return "number", text


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DuplicateKey(next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at])))
    return found


_document = json.JSONDecoder(
    object_pairs_hook=_unique, parse_int=_number, parse_float=_number, parse_constant=_number
).decode
