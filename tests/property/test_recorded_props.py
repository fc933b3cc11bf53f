"""No way to cut a reply into events leaves a secret readable in what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.archive.content import fold
from llm_proxy.chat.events import CallDelta, Ended, Event, Finished, Reasoning, ReasoningKind, Started, Text
from llm_proxy.redacting.recorded import RecordMask, record_mask
from llm_proxy.redacting.recorded_replies import masked_reply
from llm_proxy.redacting.rules import Redaction, Rule
from llm_proxy.wire.dialect import About
from llm_proxy.wire.dialects import DIALECTS
from tests.stores import body_of

KEY = "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8t"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh/kiG9w0+BAQEF\nAAS=\n-----END PRIVATE KEY-----"
CARD = "4111 1111 1111 1111"
SPOKEN = ["openai_chat", "anthropic_messages", "openai_responses"]


def _mask() -> RecordMask:
    rules = (Rule("card", "*", (), "card_number", "mask", None),)
    found = record_mask(Redaction(b"k" * 32, records=rules), b"", mask_secrets=True)
    assert found is not None
    return found


MASK = _mask()


def _cut(text: str, at: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *[place % (len(text) + 1) for place in at]})
    return [text[a:b] for a, b in pairwise(places)]


def _streamed(dialect: str, events: list[Event]) -> bytes:
    translation = DIALECTS[dialect].translation
    assert translation is not None
    request = DIALECTS["openai_chat"].parse(body_of({"role": "user", "content": "x"}, model="m", stream=True))
    renderer = translation.renderer(About(call_id="c", model="m", created=1, request=request))
    return b"".join([renderer.render([event]) for event in events]) + renderer.close()


@pytest.mark.parametrize("dialect", SPOKEN)
@given(
    secret=st.sampled_from([KEY, PEM, CARD]),
    before=st.text(alphabet='é “\n\\"a:', max_size=6),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    words=st.lists(st.integers(0, 200), max_size=6),
)
def test_no_cut_leaves_a_secret_readable(
    dialect: str, secret: str, before: str, cuts: list[int], words: list[int]
) -> None:
    text = f"{before} {secret}."
    arguments = json.dumps({"note": f"{before}\n{secret}", "n": 1})
    events: list[Event] = [Started("r1", "m")]
    events += [Reasoning(0, piece, ReasoningKind.SUMMARY) for piece in _cut(text, words)]
    events += [Text(0, piece) for piece in _cut(text, cuts)]
    begun = CallDelta(choice=0, index=0, id="call_1", name="f")
    events += [begun, *[CallDelta(choice=0, index=0, arguments=piece) for piece in _cut(arguments, cuts)]]
    stream = _streamed(dialect, [*events, Finished(0, "tool_calls"), Ended()])
    out = masked_reply(stream, MASK)
    assert out is not None
    for form in (secret, json.dumps(secret)[1:-1], json.dumps(json.dumps(secret)[1:-1])[1:-1]):
        assert form.encode() not in out
    reply = fold(DIALECTS[dialect], out, stream=True)
    (choice,) = reply.choices
    said = [
        choice.text,
        *[part.text for part in choice.reasoning],
        *[call.arguments for call in choice.calls],
    ]
    assert all(secret not in each and "[redacted]" in each for each in said)
    assert choice.text.strip() == f"{before} [redacted].".strip()
    assert json.loads(choice.calls[0].arguments) == {"note": f"{before}\n[redacted]", "n": 1}
    assert (choice.calls[0].id, choice.finish) == (
        "call_1",
        fold(DIALECTS[dialect], stream, stream=True).choices[0].finish,
    )


@pytest.mark.parametrize("dialect", SPOKEN)
@given(text=st.text(max_size=80), cuts=st.lists(st.integers(0, 200), max_size=12))
def test_a_reply_without_a_secret_is_kept_as_it_came(dialect: str, text: str, cuts: list[int]) -> None:
    events: list[Event] = [Started("r1", "m"), *[Text(0, piece) for piece in _cut(text, cuts)]]
    events += [Finished(0, "stop"), Ended()]
    assert masked_reply(_streamed(dialect, events), MASK) is None


@given(st.lists(st.integers(0, 60), max_size=8))
def test_a_value_that_is_cut_over_blocks_or_comes_by_turns_is_masked(cuts: list[int]) -> None:
    pieces = _cut(f"it is {KEY} you", cuts)
    frames = b""
    for n, piece in enumerate(pieces):
        for choice in (0, 1):
            delta = {"choices": [{"delta": {"content": piece}, "index": choice}], "id": f"c{n}"}
            frames += b"data: " + json.dumps(delta).encode() + b"\r\n\r\n"
    out = masked_reply(frames + b"data: [DONE]\r\n\r\n", MASK)
    assert out is not None
    reply = fold(DIALECTS["openai_chat"], out, stream=True)
    assert [choice.text for choice in reply.choices] == ["it is [redacted] you"] * 2


@given(st.binary(max_size=200), st.integers(0, 3))
def test_no_bytes_make_it_fail(data: bytes, where: int) -> None:
    marks = [b"", b"data: ", b'{"a": "', b'data: {"a": "']
    out = masked_reply(marks[where] + data + KEY.encode() + data, MASK)
    assert b" " + KEY.encode() not in (out or b"")
