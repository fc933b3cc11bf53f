"""Whatever bytes come, from a caller or an upstream, every dialect either reads them or says that it can't.

Every registered dialect is tested with every dialect's documents, whole, mutated and torn, and with noise.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_proxy.chat.events import CallDelta, Event, Frame, Unreadable
from llm_proxy.errors import ProxyError
from llm_proxy.wire.dialect import About, Denied, Dialect
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.sse import SseFrame, SseReader, render

GOLDEN = Path(__file__).parent.parent / "golden"
BODIES = [path.read_bytes() for path in sorted(GOLDEN.rglob("*.json"))]
STREAMS = [path.read_bytes() for path in sorted(GOLDEN.rglob("*.sse"))]
FUNCTION = {"name": "get", "description": "d", "parameters": {"type": "object", "properties": {}}}
IMAGE = "data:image/png;base64,AAAA"
REQUESTS: list[dict[str, Any]] = [
    {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hi"},
                    {"type": "image_url", "image_url": {"url": IMAGE}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "hm",
                "reasoning_details": [{"type": "reasoning.text", "text": "hm", "signature": "S", "index": 0}],
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "get", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": "42"},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
        "tool_choice": "auto",
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 9,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "reasoning_effort": "low",
        "stop": ["a"],
        "n": 2,
        "user": "u",
        "metadata": {"a": "b"},
    },
    {
        "model": "m",
        "input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "s"}],
                "encrypted_content": "E",
            },
            {"type": "function_call", "call_id": "c", "name": "get", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "42"},
        ],
        "instructions": "be brief",
        "tools": [{"type": "function", **FUNCTION}, {"type": "custom", "name": "x"}, {"type": "web_search"}],
        "tool_choice": {"type": "function", "name": "get"},
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "max_output_tokens": 9,
        "previous_response_id": "resp_1",
        "store": False,
        "stream": True,
    },
    {
        "model": "m",
        "max_tokens": 4096,
        "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "S"},
                    {"type": "redacted_thinking", "data": "R"},
                    {"type": "text", "text": "a"},
                    {"type": "tool_use", "id": "t", "name": "get", "input": {}},
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t", "content": "42", "is_error": False}],
            },
        ],
        "tools": [{"name": "get", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "stop_sequences": ["a"],
        "metadata": {"user_id": '{"session_id":"s"}'},
        "top_k": 3,
        "stream": True,
    },
    {"model": "m", "prompt": ["a", [1, 2]], "suffix": "b", "max_tokens": 3, "echo": True, "logprobs": 1},
    {"model": "m", "input": ["a", [1, 2]], "dimensions": 3, "encoding_format": "base64"},
]


def dump(value: Any) -> bytes:
    return json.dumps(value).encode()


ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        1 << 70,
        1.5,
        "",
        "x",
        "\ud800",
        "<think>",
        [],
        {},
        [[]],
        [None],
        [""],
        [{}],
        {"type": "text"},
        {"": None},
    ]
)
WORDS = [
    "type",
    "id",
    "index",
    "content",
    "text",
    "role",
    "tool_calls",
    "function",
    "name",
    "input",
    "delta",
    "output",
]
NOISE = st.one_of(
    st.binary(max_size=60),
    st.recursive(
        ODD,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner),
        max_leaves=8,
    ).map(dump),
)
BOUNDED = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=list(DIALECTS))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container in a document with a key of it, from the outside in."""
    found: list[tuple[Any, Any]] = []
    todo = [value]
    for at in todo:
        keys: Iterable[Any] = at if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        for key in keys:
            found.append((at, key))
            todo.append(at[key])
    return found


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> bytes:
    """A document with a few of its values replaced, doubled or gone, and perhaps torn."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(0, 3))):
        found = places(document)
        if not found:
            break
        parent, key = draw(st.sampled_from(found))
        match draw(st.integers(0, 3)):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            case 2:
                parent[draw(st.sampled_from(WORDS)) if isinstance(parent, dict) else key] = copy.deepcopy(
                    draw(ODD)
                )
            case _:
                parent[key] = copy.deepcopy(draw(ODD))
    return draw(torn(dump(document)))


@st.composite
def torn(draw: st.DrawFn, data: bytes) -> bytes:
    """Mostly as it is; else cut, or with bytes in the middle overwritten."""
    if draw(st.integers(0, 3)):
        return data
    at = draw(st.integers(0, len(data)))
    return (
        data[:at]
        + draw(st.sampled_from([b"", b'"', b"}", b"\xff", b"\x00", b"[" * 3]))
        + data[at + draw(st.integers(0, 9)) :]
    )


def read_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def is_json(data: bytes) -> bool:
    """As a body's parser has seen to before a message is cut from it."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


requests = st.one_of(NOISE, st.sampled_from(REQUESTS).flatmap(mutated))
bodies = st.one_of(NOISE, st.sampled_from(BODIES).map(json.loads).flatmap(mutated))
messages = st.one_of(
    requests,
    st.sampled_from([m for r in REQUESTS for m in r.get("messages") or r.get("input") or ()]).flatmap(
        mutated
    ),
).filter(is_json)


@st.composite
def streams(draw: st.DrawFn) -> list[SseFrame]:
    """A fixture's frames, a few of them mutated, doubled, dropped or swapped, as the reader cuts them."""
    frames = SseReader().feed(draw(st.sampled_from(STREAMS)))
    for _ in range(draw(st.integers(0, 2))):
        at, to = draw(st.integers(0, len(frames) - 1)), draw(st.integers(0, len(frames) - 1))
        frame = frames[at]
        document = read_json(frame.data)
        data = draw(NOISE) if document is None else draw(mutated(document))
        raw = render(data, draw(st.sampled_from([frame.event, frame.event, "error", ""])))
        frames[to : to + draw(st.integers(0, 1))] = SseReader().feed(raw)
    reader = SseReader()
    stream = b"".join(frame.raw for frame in frames)
    return reader.feed(draw(torn(stream))) + reader.close()


def denied_of(frames: Sequence[Frame], data: st.DataObject) -> Denied:
    calls = {(e.choice, e.index) for frame in frames for e in frame.events if isinstance(e, CallDelta)}
    return {call: "denied" for call in sorted(calls) if data.draw(st.booleans())}


def parsed(dialect: Dialect, body: bytes) -> WireRequest | None:
    try:
        return dialect.parse(body)
    except ProxyError:
        return None


def reader_of(dialect: Dialect) -> Callable[[SseFrame], Frame]:
    """What reads one stream's frames, in order."""
    return dialect.reader() if dialect.reader else dialect.read_frame


def readable(frame: Frame) -> bool:
    return not any(isinstance(event, Unreadable) for event in frame.events)


@dialects
@BOUNDED
@given(requests)
def test_requests(dialect: Dialect, body: bytes) -> None:
    """A request is parsed or refused; what was parsed can be read message by message, and sent on."""
    request = parsed(dialect, body)
    if request is None:
        return
    for message in request.messages:
        try:
            dialect.message_facts(message)
            dialect.signed(message)
        except ProxyError:
            continue
    for span in [*request.spans.values(), *request.message_spans]:
        assert 0 <= span[0] <= span[1] <= len(body)
    cap = (dialect.cap_field, 7) if dialect.cap_field else None
    dialect.upstream_edits(request, "other", cap, ask_usage=True)


@dialects
@BOUNDED
@given(messages)
def test_messages(dialect: Dialect, message: bytes) -> None:
    try:
        dialect.message_facts(message)
        dialect.signed(message)
    except ProxyError:
        return


@dialects
@BOUNDED
@given(bodies, st.data())
def test_replies(dialect: Dialect, body: bytes, data: st.DataObject) -> None:
    frame = dialect.read_body(body)
    assert frame.raw == body
    if readable(frame) and (denied := denied_of([frame], data)):
        assert not set(denied) & _calls(
            dialect.read_body(dialect.edit_body(body, denied)), kept=frame, denied=denied
        )


def _calls(after: Frame, kept: Frame, denied: Denied) -> set[tuple[int, int]]:
    """The ids of denied calls that are still there."""
    gone = {e.id for e in kept.events if isinstance(e, CallDelta) and (e.choice, e.index) in denied and e.id}
    gone -= {e.id for e in kept.events if isinstance(e, CallDelta) and (e.choice, e.index) not in denied}
    return {(e.choice, e.index) for e in after.events if isinstance(e, CallDelta) and e.id in gone}


@dialects
@BOUNDED
@given(streams(), st.data())
def test_streams(dialect: Dialect, frames: list[SseFrame], data: st.DataObject) -> None:
    read_frame = reader_of(dialect)
    read = [read_frame(frame) for frame in frames]
    assert [frame.raw for frame in read] == [frame.raw for frame in frames]
    held = [frame for frame in read if readable(frame)]
    dialect.edit_frames(held, denied_of(held, data))


TRANSLATED = {name: dialect for name, dialect in DIALECTS.items() if dialect.translation is not None}
translated = pytest.mark.parametrize("dialect", TRANSLATED.values(), ids=list(TRANSLATED))


@translated
@BOUNDED
@given(requests)
def test_prompts(dialect: Dialect, body: bytes) -> None:
    """A request is translated into every dialect, or refused."""
    request = parsed(dialect, body)
    assert dialect.translation is not None
    if request is None:
        return
    try:
        prompt = dialect.translation.read_prompt(request)
    except ProxyError:
        return
    for other in TRANSLATED.values():
        assert other.translation is not None
        try:
            written = other.translation.write_prompt(prompt)
        except ProxyError:
            continue
        other.parse(written.body)


@translated
@BOUNDED
@given(streams(), bodies, st.sampled_from(sorted(TRANSLATED)))
def test_renderings(dialect: Dialect, frames: list[SseFrame], body: bytes, upstream: str) -> None:
    """A reply of any dialect is written anew in every other, whole and streamed."""
    translation = dialect.translation
    assert translation is not None
    source = DIALECTS[upstream]
    read_frame = reader_of(source)
    about = About(call_id="c-1", model="m", created=1, request=WireRequest(body=b"{}", model="m", spans={}))
    events: list[Event] = [event for frame in frames for event in read_frame(frame).events]
    for given_ in (events, list(source.read_body(body).events)):
        json.loads(translation.render_body(given_, about))
        renderer = translation.renderer(about)
        raw = b"".join(renderer.render([event]) for event in given_) + renderer.close()
        reader = SseReader()
        again = reader_of(dialect)
        out = [again(frame) for frame in [*reader.feed(raw), *reader.close()]]
        assert all(readable(frame) for frame in out)
