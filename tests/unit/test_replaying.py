"""What a replay compares and how it matches: pure, without a server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from llm_proxy.replaying.compare import MOST, SHOWN, Asked, asked, differences, fits_mask, same
from llm_proxy.replaying.completions import body_of_stream, stream_of_body
from llm_proxy.replaying.matching import WINDOW, Matching
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_completions import OPENAI_COMPLETIONS
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES


def _chat(*texts: Any, **more: Any) -> Asked:
    return _asked({"model": "m", "messages": [{"role": "user", "content": t} for t in texts], **more})


def _asked(body: dict[str, Any] | bytes) -> Asked:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return asked(OPENAI_CHAT, OPENAI_CHAT.parse(raw))


@pytest.mark.parametrize(
    "live",
    [
        b'{"messages":[{"content":"hi","role":"user"}],"model":"m","temperature":1}',
        b'{ "model" : "m", "temperature": 1.0, "messages" : [ { "role":"user", "content": "hi" } ] }',
        b'{"model":"m","messages":[{"role":"user","content":"h\\u0069","name":null}],"temperature":1,"stop":null}',
        b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":1,"stream":true,'
        b'"stream_options":{"include_usage":true},"user":"ann","metadata":{"run_id":"another"}}',
    ],
    ids=["order of keys", "white space and floats", "escapes and nulls", "how and whose"],
)
def test_these_ask_the_same(live: bytes) -> None:
    recorded = _asked(b'{"model":"m","messages":[{"role":"user","content":"hi"}],"temperature":1}')
    assert same(recorded, _asked(live), masked=False)
    assert differences(recorded, _asked(live), masked=False) == []


def test_a_difference_names_its_message_and_path() -> None:
    recorded = _chat("a", [{"type": "text", "text": "one"}], temperature=0)
    live = _chat("a", [{"type": "text", "text": "two"}], temperature=1)
    told = [(d.message, d.path, d.recorded, d.live) for d in differences(recorded, live, masked=False)]
    assert told == [(2, "messages[1].content[0].text", "one", "two"), (0, "temperature", "0", "1")]


def test_a_message_that_is_missing_or_new_is_told_whole() -> None:
    (gone,) = differences(_chat("a", "b"), _chat("a"), masked=False)
    assert (gone.message, gone.path, gone.live) == (2, "messages[1]", None)
    assert gone.recorded == '{"role":"user","content":"b"}'
    (new,) = differences(_chat("a"), _chat("a", "b"), masked=False)
    assert (new.message, new.recorded) == (2, None)


def test_booleans_are_no_numbers() -> None:
    assert differences(_chat("a", seed=1), _chat("a", seed=True), masked=False)


def test_long_texts_are_shown_where_they_part() -> None:
    before = "x" * 100_000
    (told,) = differences(_chat(f"{before}one{before}"), _chat(f"{before}two{before}"), masked=False)
    assert told.recorded is not None
    assert told.live is not None
    assert "xone" in told.recorded
    assert "xtwo" in told.live
    assert max(len(told.recorded), len(told.live)) <= SHOWN + 2
    many = differences(_chat(*"abcdefgh"), _chat(*"ABCDEFGH"), masked=False)
    assert len(many) == MOST


def test_items_of_responses_are_compared_without_their_providers_names() -> None:
    def items(id_: str, call: str) -> Asked:
        item = {"type": "function_call", "id": id_, "status": "completed", "call_id": call, "name": "f"}
        body = {"model": "m", "input": [item | {"arguments": "{}"}]}
        return asked(OPENAI_RESPONSES, OPENAI_RESPONSES.parse(json.dumps(body).encode()))

    assert same(items("fc_1", "call_1"), items("fc_2", "call_1"), masked=False)
    assert not same(items("fc_1", "call_1"), items("fc_1", "call_2"), masked=False)


@pytest.mark.parametrize(
    ("recorded", "live", "fits"),
    [
        ("key [redacted] is it", "key sk-123 is it", True),
        ("key [redacted] is it", "key sk-123 was it", False),
        ("[redacted]", "anything", True),
        ("a [redacted] b [redacted] c", "a 1 b 2 c", True),
        ("a [redacted] b [redacted] c", "a 1 c", False),
        ("mail tok_0123456789abcdef01234567", "mail ann@example.com", True),
        ("card ****4242.", "card 4242424242424242.", True),
        ("no mask", "no mask at all", False),
        ("ab[redacted]bc", "abc", False),
    ],
)
def test_a_mask_fits_what_may_have_stood_there(recorded: str, live: str, fits: bool) -> None:
    assert fits_mask(recorded, live) is fits
    assert same(_chat(recorded), _chat(live), masked=True) is fits
    assert not same(_chat(recorded), _chat(live), masked=False)


def test_a_deep_body_is_compared_all_the_same() -> None:
    deep = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"x":%s%s}' % (b"[" * 900, b"]" * 900)
    assert same(_asked(deep), _asked(deep), masked=False)
    assert not same(_asked(deep), _chat("hi"), masked=False)


@dataclass(frozen=True)
class Call:
    asked: Asked
    masked: bool = False


def _matching(*texts: str) -> Matching:
    return Matching([Call(_chat(text)) for text in texts])


def _take(matching: Matching, text: str) -> tuple[int, bool, bool] | None:
    match = matching.take(_chat(text))
    return match and (match.place, bool(match.differences), match.again)


def test_equal_requests_take_equal_calls_in_order() -> None:
    matching = _matching("poll", "poll", "done")
    assert [_take(matching, t) for t in ("poll", "poll", "done")] == [
        (0, False, False),
        (1, False, False),
        (2, False, False),
    ]
    assert _take(matching, "poll") == (1, False, True)
    assert _take(matching, "other") is None


def test_what_is_far_ahead_is_not_looked_for() -> None:
    texts = [str(n) for n in range(WINDOW + 2)]
    matching = _matching(*texts)
    assert _take(matching, texts[WINDOW - 1]) == (WINDOW - 1, False, False)
    assert _take(matching, texts[WINDOW + 1]) == (0, True, False)
    assert _take(matching, "0") == (0, False, False), "who asked for it gets it, too"
    assert matching.ahead[0] == 1


def test_a_reply_that_was_not_heard_may_be_asked_for_again() -> None:
    matching = _matching("one", "two")
    match = matching.take(_chat("one"))
    assert match is not None
    matching.unheard(match)
    assert _take(matching, "one") == (0, False, False)
    assert _take(matching, "one") == (0, False, True)


def test_another_dialect_is_a_difference_and_takes_its_own_first() -> None:
    prompt = asked(OPENAI_COMPLETIONS, OPENAI_COMPLETIONS.parse(b'{"model":"m","prompt":"x"}'))
    matching = Matching([Call(_chat("one")), Call(prompt)])
    other = asked(OPENAI_COMPLETIONS, OPENAI_COMPLETIONS.parse(b'{"model":"m","prompt":"y"}'))
    match = matching.take(other)
    assert match is not None
    assert (match.place, [d.path for d in match.differences]) == (1, ["prompt"])
    last = matching.take(other)
    assert last is not None
    assert (last.place, last.differences[0].path) == (0, "(dialect)")


def test_completions_keep_all_in_either_form() -> None:
    body = {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "m",
        "choices": [
            {"index": 0, "text": "one two", "logprobs": None, "finish_reason": "stop"},
            {"index": 1, "text": "three", "logprobs": None, "finish_reason": "length"},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
    }
    assert json.loads(body_of_stream(stream_of_body(json.dumps(body).encode()))) == body
    chunks = [
        {"id": "c", "choices": [{"index": 0, "text": "one ", "finish_reason": None}], "usage": None},
        {"id": "c", "choices": [{"index": 0, "text": "two", "finish_reason": "stop"}], "usage": None},
        {"id": "c", "choices": [], "usage": {"total_tokens": 4}},
    ]
    stream = b"".join(b"data: %s\n\n" % json.dumps(c).encode() for c in chunks) + b"data: [DONE]\n\n"
    whole = json.loads(body_of_stream(stream))
    assert (whole["choices"][0]["text"], whole["choices"][0]["finish_reason"]) == ("one two", "stop")
    assert whole["usage"] == {"total_tokens": 4}
