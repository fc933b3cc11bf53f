"""A request of Anthropic's Messages API, as far as a script looks at it, and what the API refuses in it.

Source of the refusals: the API's own error messages, as clients report them, and Anthropic's guide to
migrating to API version 2026-10-21.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

import msgspec

from llm_proxy.scripted.request import Dialect, Line, RequestError, ScriptedRequest, talk_of
from llm_proxy.scripted.seals import Seal, is_ours, is_signed

_LEAST_BUDGET = 1024
_NEW = "2026-10-21"
"""From this version on there are no sampling parameters, and system messages may stand among the others."""
_THINKING = ("thinking", "redacted_thinking")
_START_WITH_THINKING = (
    "Expected `thinking` or `redacted_thinking`, but found `{found}`. When `thinking` is enabled, a final "
    "`assistant` message must start with a thinking block (preceeding the lastmost set of `tool_use` and "
    "`tool_result` blocks). We recommend you include thinking blocks from previous turns. To avoid this "
    "requirement, disable `thinking`. Please consult our documentation at "
    "https://docs.claude.com/en/docs/build-with-claude/extended-thinking"
)


class _Block(msgspec.Struct):
    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    tool_use_id: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")
    thinking: str = ""
    signature: str | None = None
    data: str = ""
    citations: msgspec.Raw = msgspec.Raw(b"null")


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Thinking(msgspec.Struct):
    type: str = ""
    budget_tokens: int | None = None
    display: str | None = None


class _Choice(msgspec.Struct):
    type: str = ""


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    stream: bool | None = None
    thinking: _Thinking | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tool_choice: _Choice | None = None


class _Sizes(msgspec.Struct):
    messages: msgspec.Raw
    system: msgspec.Raw = msgspec.Raw(b"")
    tools: msgspec.Raw = msgspec.Raw(b"")


class _Text(msgspec.Struct):
    text: str = ""


_body = msgspec.json.Decoder(_Body)
_sizes = msgspec.json.Decoder(_Sizes)
_texts = msgspec.json.Decoder(str | list[_Text] | None)


def read_messages(body: bytes, headers: Mapping[str, str]) -> ScriptedRequest:
    """A request for a reply. RequestError with Anthropic's words for what Anthropic refuses."""
    parsed, request = _read(body, headers, Dialect.MESSAGES)
    if parsed.max_tokens is None:
        raise RequestError("max_tokens: Field required")
    if parsed.max_tokens < 1:
        raise RequestError("max_tokens: Input should be greater than or equal to 1")
    _check_thinking(parsed, parsed.max_tokens)
    return request


def read_count(body: bytes, headers: Mapping[str, str]) -> ScriptedRequest:
    """A request to count tokens, which needs no `max_tokens`."""
    return _read(body, headers, Dialect.COUNT_TOKENS)[1]


def _read(body: bytes, headers: Mapping[str, str], dialect: Dialect) -> tuple[_Body, ScriptedRequest]:
    if "anthropic-version" not in headers:
        raise RequestError("anthropic-version: header is required")
    try:
        parsed, sizes = _body.decode(body), _sizes.decode(body)
        turns = _merged(parsed.messages)
        is_new = headers["anthropic-version"] >= _NEW
        _check_conversation(turns, ("user", "assistant", "system") if is_new else ("user", "assistant"))
        lines = [line for _, role, blocks in turns for line in _lines(role, blocks)]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is no message: {error}") from None
    if is_new:
        _check_sampling(parsed)
        _check_places(parsed.messages)
    thinking = parsed.thinking or _Thinking()
    if thinking.type == "enabled":
        _check_open_loop(turns)
    measured = (sizes.messages, sizes.system, sizes.tools)
    return parsed, ScriptedRequest(
        model=parsed.model,
        dialect=dialect,
        stream=bool(parsed.stream),
        include_usage=True,
        talk=talk_of(lines),
        headers=dict(headers),
        input_bytes=sum(len(bytes(part)) for part in measured),
        digest=sha256(body).digest(),
        thinking=thinking.type if thinking.type in ("enabled", "adaptive") else "",
        thinking_omitted=thinking.display == "omitted",
        unsigned=_check_seals(parsed.messages),
    )


_Turn = tuple[int, str, list[_Block]]
"""Index of its first message, role, blocks."""


def _merged(messages: list[_Message]) -> list[_Turn]:
    """Neighbours of one role are one turn, as the API has it."""
    turns: list[_Turn] = []
    for index, message in enumerate(messages):
        content = message.content
        blocks = [_Block("text", text=content)] if isinstance(content, str) else content
        if turns and turns[-1][1] == message.role:
            turns[-1][2].extend(blocks)
        else:
            turns.append((index, message.role, [*blocks]))
    return turns


def _lines(role: str, blocks: list[_Block]) -> Iterator[Line]:
    """Results of tools are lines of their own, as other dialects have them."""
    for block in blocks:
        if block.type == "tool_result":
            yield Line("tool", _result_text(block), answers=(block.tool_use_id,))
    text = "\n".join(block.text for block in blocks if block.type == "text")
    calls = {block.id: block.name for block in blocks if block.type == "tool_use"}
    if role == "assistant" or any(block.type != "tool_result" for block in blocks):
        yield Line(role, text, calls)


def _result_text(block: _Block) -> str:
    match _texts.decode(block.content):
        case str(text):
            return text
        case None:
            return ""
        case parts:
            return "\n".join(part.text for part in parts if part.text)


def _check_sampling(parsed: _Body) -> None:
    for name in ("temperature", "top_p", "top_k"):
        if getattr(parsed, name) is not None:
            raise RequestError(f"{name}: Extra inputs are not permitted")


def _check_places(messages: list[_Message]) -> None:
    """Documents are the user's, and citations the assistant's."""
    for index, message in enumerate(messages):
        for position, block in enumerate(message.content if isinstance(message.content, list) else ()):
            cites = block.type == "text" and bytes(block.citations) not in (b"null", b"[]")
            if block.type == "document" and message.role == "assistant":
                raise RequestError(
                    f"messages.{index}.content.{position}: `document` blocks are not permitted in "
                    "`assistant` messages"
                )
            if cites and message.role == "user":
                raise RequestError(
                    f"messages.{index}.content.{position}.text.citations: Extra inputs are not permitted"
                )


def _check_conversation(turns: list[_Turn], roles: tuple[str, ...]) -> None:
    if not turns:
        raise RequestError("messages: at least one message is required")
    before: tuple[int, list[str]] = (0, [])
    for index, role, blocks in turns:
        if role not in roles:
            raise RequestError(
                f'messages: Unexpected role "{role}". The Messages API accepts a top-level `system` '
                'parameter, not "system" as an input message role.'
            )
        if role == "system":
            continue
        if role == "user":
            _check_results(index, blocks, before)
        before = (index, [b.id for b in blocks if b.type == "tool_use"] if role == "assistant" else [])
    if turns[0][1] != "user":
        raise RequestError('messages: first message must use the "user" role')
    if before[1]:
        raise RequestError(_unanswered(before[0], before[1]))


def _check_results(index: int, blocks: list[_Block], before: tuple[int, list[str]]) -> None:
    """Results stand first in the turn right after their calls, one for each."""
    asked_at, asked = before
    leading = next((i for i, b in enumerate(blocks) if b.type != "tool_result"), len(blocks))
    for position, block in enumerate(blocks):
        if block.type == "tool_result" and block.tool_use_id not in asked:
            raise RequestError(
                f"messages.{index}.content.{position}: unexpected `tool_use_id` found in `tool_result` "
                f"blocks: {block.tool_use_id}. Each `tool_result` block must have a corresponding `tool_use` "
                "block in the previous message."
            )
    given = {block.tool_use_id for block in blocks[:leading]}
    missing = [id_ for id_ in asked if id_ not in given]
    if missing:
        raise RequestError(_unanswered(asked_at, missing))


def _unanswered(index: int, ids: list[str]) -> str:
    return (
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
        f"{', '.join(ids)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
        "message."
    )


def _check_thinking(parsed: _Body, max_tokens: int) -> None:
    thinking = parsed.thinking
    if thinking is None or thinking.type not in ("enabled", "adaptive"):
        return
    if thinking.type == "enabled":
        if thinking.budget_tokens is None:
            raise RequestError("thinking.enabled.budget_tokens: Field required")
        if thinking.budget_tokens < _LEAST_BUDGET:
            raise RequestError(
                "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
            )
        if max_tokens <= thinking.budget_tokens:
            raise RequestError("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if parsed.temperature not in (None, 1):
        raise RequestError("`temperature` may only be set to 1 when thinking is enabled.")
    if parsed.tool_choice is not None and parsed.tool_choice.type in ("any", "tool"):
        raise RequestError("Thinking may not be enabled when tool_choice forces tool use.")


def _check_open_loop(turns: list[_Turn]) -> None:
    """An assistant turn goes on while results of tools come back: its first message has to think."""
    start: _Turn | None = None
    for turn in reversed(turns):
        _, role, blocks = turn
        if role == "assistant":
            start = turn
        elif role == "user" and not any(block.type == "tool_result" for block in blocks):
            break
    is_open = turns[-1][1] == "user" and any(b.type == "tool_result" for b in turns[-1][2])
    if not is_open or start is None:
        return
    index, _, blocks = start
    found = blocks[0].type if blocks else "nothing"
    if found not in _THINKING:
        raise RequestError(f"messages.{index}.content.0.type: {_START_WITH_THINKING.format(found=found)}")


def _check_seals(messages: list[_Message]) -> str:
    """The place of the first block with an empty signature, which some vendors issue; others are refused."""
    unsigned = ""
    for index, message in enumerate(messages):
        for position, block in enumerate(message.content if isinstance(message.content, list) else ()):
            place = f"messages.{index}.content.{position}"
            if block.type == "redacted_thinking" and not is_ours(Seal.REDACTED, block.data):
                raise RequestError(f"{place}: Invalid `data` in `redacted_thinking` block")
            if block.type != "thinking":
                continue
            if block.signature is None:
                raise RequestError(f"{place}.thinking.signature: Field required")
            if not block.signature:
                unsigned = unsigned or place
            elif not is_signed(block.thinking, block.signature):
                raise RequestError(invalid_signature(place))
    return unsigned


def invalid_signature(place: str) -> str:
    """Anthropic's words for a thinking block that it didn't write."""
    return f"{place}: Invalid `signature` in `thinking` block"
