"""A request of OpenAI's Responses API, as far as a script looks at it, and what the API refuses in it.

Source of the refusals: the API's own error messages, as clients report them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import sha256

import msgspec

from llm_proxy.scripted.request import Dialect, Line, RequestError, ScriptedRequest, Talk, talk_of
from llm_proxy.scripted.script import JsonObject
from llm_proxy.scripted.seals import Seal, is_ours

_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_ECHOED = (
    "background",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
)
_SHOWN_SEAL = 4


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")
    id: str | None = None
    call_id: str = ""
    name: str = ""
    namespace: str | None = None
    output: msgspec.Raw = msgspec.Raw(b"null")
    encrypted_content: str | None = None


class _Tool(msgspec.Struct):
    type: str = ""
    name: str = ""


class _Body(msgspec.Struct):
    model: str
    input: str | list[_Item] = ""
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    include: list[str] | None = None
    previous_response_id: str | None = None
    tools: list[_Tool] | None = None


class _Sizes(msgspec.Struct):
    input: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")


class _Text(msgspec.Struct):
    text: str = ""


_body = msgspec.json.Decoder(_Body)
_sizes = msgspec.json.Decoder(_Sizes)
_whole: msgspec.json.Decoder[JsonObject] = msgspec.json.Decoder(dict)
_texts = msgspec.json.Decoder(str | list[_Text] | None)


def read_responses(body: bytes, headers: Mapping[str, str]) -> ScriptedRequest:
    """A request for a response. RequestError with OpenAI's words for what OpenAI refuses."""
    try:
        parsed, sizes = _body.decode(body), _sizes.decode(body)
        echo = {name: value for name, value in _whole.decode(body).items() if name in _ECHOED}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is no response: {error}") from None
    items = [_Item(role="user", content=sizes.input)] if isinstance(parsed.input, str) else parsed.input
    _check_seals(items)
    tools = parsed.tools or ()
    measured = (sizes.input, sizes.instructions, sizes.tools)
    request = ScriptedRequest(
        model=parsed.model,
        dialect=Dialect.RESPONSES,
        stream=bool(parsed.stream),
        include_usage=True,
        talk=talk_of(_lines(items)),
        headers=dict(headers),
        input_bytes=sum(len(bytes(part)) for part in measured),
        digest=sha256(body).digest(),
        custom_tools=frozenset(tool.name for tool in tools if tool.type == "custom"),
        namespaces=frozenset(tool.name for tool in tools if tool.type == "namespace"),
        encrypted="reasoning.encrypted_content" in (parsed.include or ()),
        store=parsed.store is not False,
        background=bool(parsed.background),
        previous=parsed.previous_response_id or "",
        known_items=tuple(_referenced(items)),
        echo=echo,
    )
    if not request.previous:
        check_answers(request.talk)
    return request


def check_answers(talk: Talk) -> None:
    """Every output has its call and every call its output, those of the earlier responses included."""
    for id_ in sorted(talk.answered - talk.calls.keys()):
        raise RequestError(
            f"No tool call found for function call output with call_id {id_}.",
            code="invalid_request_error",
            param="input",
        )
    for id_ in sorted(talk.calls.keys() - talk.answered):
        raise RequestError(
            f"No tool output found for function call {id_}.", code="invalid_request_error", param="input"
        )


def _check_seals(items: Iterable[_Item]) -> None:
    for item in items:
        seal = item.encrypted_content
        if item.type == "reasoning" and seal is not None and not is_ours(Seal.ENCRYPTED, seal):
            shown = seal if len(seal) <= 2 * _SHOWN_SEAL else f"{seal[:_SHOWN_SEAL]}...{seal[-_SHOWN_SEAL:]}"
            raise RequestError(
                f"The encrypted content {shown} could not be verified. Reason: Encrypted content could not "
                "be decrypted or parsed.",
                code="invalid_encrypted_content",
            )


def _referenced(items: Iterable[_Item]) -> Iterable[str]:
    for item in items:
        bare = item.type == "reasoning" and item.encrypted_content is None
        if item.id and (bare or item.type == "item_reference"):
            yield item.id


def _lines(items: Iterable[_Item]) -> list[Line]:
    """Reasoning, words and calls that follow each other are one assistant message."""
    lines: list[Line] = []
    for item in items:
        if item.type in _OUTPUTS:
            lines.append(Line("tool", _text(item.output), answers=(item.call_id,)))
        elif item.type == "message" and item.role != "assistant":
            lines.append(Line(item.role, _text(item.content)))
        elif item.type == "message" or item.type == "reasoning" or item.type.endswith("_call"):
            if not lines or lines[-1].role != "assistant":
                lines.append(Line("assistant"))
            lines[-1] = _extended(lines[-1], item)
    return lines


def _extended(line: Line, item: _Item) -> Line:
    if item.type in _CALLS:
        name = item.name if item.namespace is None else f"{item.namespace}__{item.name}"
        return Line(line.role, line.text, line.calls | {item.call_id: name})
    words = _text(item.content) if item.type == "message" else ""
    return Line(line.role, "\n".join(filter(None, (line.text, words))), line.calls)


def _text(raw: msgspec.Raw) -> str:
    try:
        found = _texts.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    match found:
        case str(text):
            return text
        case None:
            return ""
        case parts:
            return "\n".join(part.text for part in parts if part.text)
