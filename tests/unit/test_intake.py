"""Requests taken apart and put together again: byte for byte, each message once, tokens counted once."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy import journal
from llm_proxy.archive.content import addresses, rebuild
from llm_proxy.counting.prompt import PER_MESSAGE, PER_REPLY
from llm_proxy.counting.text import TokenCounter
from llm_proxy.errors import ProxyError
from llm_proxy.exchange import Exchange
from llm_proxy.intake import Intake, Reader
from llm_proxy.records import bodies
from llm_proxy.records.blobs import Addresser
from llm_proxy.records.bodies import Content
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_chat.request import _Body
from tests.stores import AGENT, Caller, body_of

SALT = b"s" * 32


def addresser() -> Addresser:
    return Addresser(20_000, SALT)


def take_apart(body: bytes, addressing: Addresser | None = None, *, count: bool = False) -> Intake:
    reader = Reader(addressing or addresser(), TokenCounter())
    return asyncio.run(reader.read(OPENAI_CHAT.parse(body), OPENAI_CHAT, count=count))


def recorded(body: bytes) -> tuple[Content, dict[bytes, bytes]]:
    """The content of the opening record, through its JSON, and the blobs stored with it."""
    exchange = Exchange("id", 1, OPENAI_CHAT, clock0=0.0, caller=Caller(AGENT, "k"), body=body)
    exchange.request, exchange.intake = OPENAI_CHAT.parse(body), take_apart(body)
    evidence = journal.opened(exchange)
    content = bodies.read_opened(evidence.records[0].body).content
    assert content is not None
    return content, {draft.id: draft.content for draft in evidence.blobs}


def rebuilt(body: bytes) -> bytes | None:
    content, blobs = recorded(body)
    assert addresses(content) == set(blobs)
    return rebuild(content, blobs)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
spaces = st.text(" \t\r\n", max_size=4)
ACTED_ON = frozenset(_Body.__struct_fields__)
"""Keys whose values have a type."""
keys = st.text(max_size=12).filter(lambda key: key not in ACTED_ON)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"]), "content": st.text(max_size=30)}
) | st.dictionaries(st.text(max_size=6), json_values, max_size=3)


@st.composite
def odd_bodies(draw: st.DrawFn) -> bytes:
    """Valid requests as no tidy client writes them: any white space, escapes, order and unknown keys."""

    def written(value: object) -> str:
        return json.dumps(
            value,
            ensure_ascii=draw(st.booleans()),
            indent=draw(st.sampled_from([None, 0, 3])),
            separators=draw(st.sampled_from([None, (",", ":"), (" , ", " : ")])),
        )

    listed = draw(st.lists(message, min_size=1, max_size=5))
    listed += draw(st.lists(st.sampled_from(listed), max_size=3))
    joint = draw(spaces) + "," + draw(spaces)
    messages = "[" + draw(spaces) + joint.join(map(written, listed)) + draw(spaces) + "]"
    fields = {written("model"): '"m"', '"mess\\u0061ges"' if draw(st.booleans()) else '"messages"': messages}
    for key, value in draw(st.dictionaries(keys, json_values, max_size=4)).items():
        fields[written(key)] = written(value)
    if draw(st.booleans()):
        fields['"tools"'] = written(
            [{"type": "function", "function": {"name": "f", "description": "d" * 600}}]
        )
    if draw(st.booleans()):
        fields['"padding"'] = '"' + "p" * draw(st.integers(500, 530)) + '"'
    items = draw(st.permutations(list(fields.items())))
    inner = joint.join(f"{key}{draw(spaces)}:{draw(spaces)}{value}" for key, value in items)
    return (draw(spaces) + "{" + draw(spaces) + inner + draw(spaces) + "}" + draw(spaces)).encode(
        "utf-8", "surrogatepass"
    )


@given(odd_bodies())
def test_any_body_is_rebuilt_byte_for_byte(body: bytes) -> None:
    assert rebuilt(body) == body


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{}]}',
        b'{"messages":[{},{},{}],"model":"m","tools":[],"functions":[]}',
        b'{"model":"m","messages":[{"role":"user","content":""}],"tools":null}',
        '{"model":"m","messages":[{"content":"é"},{"content":"🌍"}],"ü":"🌍"}'.encode(),
        b'{"model":"m","messages":[{"content":[]}],"x":"' + b"y" * 100_000 + b'"}',
        body_of(*[{"role": "user", "content": "same"}] * 50),
    ],
)
def test_edges_of_a_body(body: bytes) -> None:
    assert rebuilt(body) == body


def test_the_envelope_holds_no_message_and_no_declared_tool() -> None:
    tools = [{"type": "function", "function": {"name": "secret_tool"}}]
    content, _ = recorded(body_of({"role": "user", "content": "secret words"}, tools=tools, extra="s" * 600))
    assert content.envelope == '{"model": "m", "messages": [], "tools": , "extra": }'


def test_without_one_of_its_pieces_a_body_is_gone() -> None:
    content, blobs = recorded(body_of({"content": "a"}, {"content": "b"}))
    for id_ in blobs:
        assert rebuild(content, {other: blobs[other] for other in blobs if other != id_}) is None
    assert rebuild(None, blobs) is None
    assert rebuild(Content(whole=b"x".hex()), {b"x": b"all"}) == b"all"


def test_holes_stand_in_order_and_never_overlap() -> None:
    body = body_of({"content": "a"}, {"content": "a"}, tools=[], extra="x" * 999, model="m")
    intake = take_apart(body)
    edges = [edge for hole in intake.holes for edge in (hole.start, hole.end)]
    assert edges == sorted(edges)
    assert intake.messages[0] == intake.messages[1]


def test_only_what_is_new_is_drafted() -> None:
    addressing = addresser()
    history = [{"role": "user", "content": f"turn {n}"} for n in range(5)]
    first = take_apart(body_of(*history[:4]), addressing)
    assert len(first.new) == 4
    addressing.committed(list(first.new))
    second = take_apart(body_of(*history), addressing)
    assert [json.loads(draft.content) for draft in second.new] == history[4:]


def test_tool_results_are_named_once_each_in_order() -> None:
    results = [{"role": "tool", "tool_call_id": id_, "content": "ok"} for id_ in ("b", "a", "b")]
    assert take_apart(body_of(*results)).results == ("b", "a")


def test_tokens_are_counted_only_where_asked_for() -> None:
    body = body_of({"role": "user", "content": "hello world"})
    assert take_apart(body).tokens is None
    assert take_apart(body, count=True).tokens == PER_REPLY + PER_MESSAGE + 2


@pytest.mark.parametrize("key", ["tools", "functions", "response_format"])
def test_what_is_declared_costs_tokens_however_short(key: str) -> None:
    plain = body_of()
    value = [{"name": "f"}] if key == "functions" else {"type": "text"}
    value = [{"type": "function", "function": {"name": "f"}}] if key == "tools" else value
    declared = take_apart(body_of(**{key: value}), count=True).tokens
    assert declared is not None
    assert declared > (take_apart(plain, count=True).tokens or 0)


async def test_a_message_seen_before_is_counted_once_and_a_count_asked_for_later_is_made() -> None:
    reader = Reader(addresser(), TokenCounter())
    request = OPENAI_CHAT.parse(body_of({"role": "tool", "tool_call_id": "c", "content": "hello"}))
    for count, tokens in ((False, None), (True, PER_REPLY + PER_MESSAGE + 1), (False, None), (True, 8)):
        intake = await reader.read(request, OPENAI_CHAT, count=count)
        assert (intake.tokens, intake.results) == (tokens, ("c",))


async def test_what_one_dialect_made_of_a_message_is_not_what_another_makes_of_it() -> None:
    """Else results that were sent to the wrong path first would be none of the policy's business."""
    reader = Reader(addresser(), TokenCounter())
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "ok"}
    body = body_of({"role": "user", "content": [result]}, max_tokens=9)
    wrong = await reader.read(OPENAI_CHAT.parse(body), OPENAI_CHAT, count=False)
    assert wrong.results == ()
    right = await reader.read(ANTHROPIC_MESSAGES.parse(body), ANTHROPIC_MESSAGES, count=False)
    assert right.results == ("toolu_1",)


def test_a_message_that_two_parsers_would_read_differently_is_refused() -> None:
    with pytest.raises(ProxyError, match="twice"):
        take_apart(b'{"model":"m","messages":[{"role":"user","role":"system"}]}')


def test_a_record_stays_small_however_long_the_history() -> None:
    body = body_of(*({"role": "user", "content": f"{n} " + "x" * 500} for n in range(200)))
    content, _ = recorded(body)
    assert len(msgspec.json.encode(content)) < len(body) / 5
