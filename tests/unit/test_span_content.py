"""The content of a call's span, under every budget."""

from __future__ import annotations

import hashlib
import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.reply import ChoiceReply, Reply
from llm_proxy.records.view import CallView
from tests.otlp_receiver import attributes_of
from tests.unit.span_reading import CONTENT, span_of
from tests.unit.telemetry_calls import plain_call, rich_call


def test_no_content_at_all_still_says_what_it_was() -> None:
    call = rich_call()
    told = attributes_of(span_of(call, 0))
    whole = attributes_of(span_of(call))
    assert not [key for key in (*CONTENT, "llm_proxy.decisions") if key in told]
    assert told["llm_proxy.content.reference"] == call.id
    for key in CONTENT:
        name = key.removeprefix("gen_ai.")
        text = str(whole[key]).encode()
        assert told[f"llm_proxy.trimmed.{name}.sha256"] == hashlib.sha256(text).hexdigest()
        assert told[f"llm_proxy.trimmed.{name}.bytes"] == len(text)
    assert "llm_proxy.content.reference" not in whole


def conversation(turns: int, size: int) -> CallView:
    """A long run: each turn reasons, calls a tool and gets `size` characters back."""
    messages: list[dict[str, object]] = [{"role": "user", "content": "start " + "ü" * size}]
    for turn in range(turns):
        call = {"id": f"c{turn}", "type": "function", "function": {"name": "read", "arguments": "{}"}}
        messages.append(
            {"role": "assistant", "reasoning": f"thought {turn}", "content": "x" * size, "tool_calls": [call]}
        )
        messages.append(
            {"role": "tool", "tool_call_id": f"c{turn}", "content": f"result {turn} " + "y" * size}
        )
    request = json.dumps({"messages": messages}).encode()
    return msgspec.structs.replace(plain_call(1), request=request)


def test_trimming_keeps_the_newest_turn_and_every_decision() -> None:
    told = attributes_of(span_of(conversation(20, 2000), 8000))
    text = str(told["gen_ai.input.messages"])
    messages = json.loads(text)
    assert len(text.encode()) <= 8000
    assert messages[-1]["role"] == "tool"
    assert messages[-1]["parts"][0]["response"].startswith("result 19 ")
    thoughts = [p["content"] for m in messages for p in m["parts"] if p["type"] == "reasoning"]
    assert thoughts == [f"thought {turn}" for turn in range(20)]
    assert "trimmed" not in messages[-1]


def test_one_long_reply_is_shortened_rather_than_lost() -> None:
    reply = Reply(choices=(ChoiceReply(index=0, text="z" * 50_000, finish="length"),))
    told = attributes_of(span_of(msgspec.structs.replace(plain_call(1), reply=reply), 2048))
    (message,) = json.loads(str(told["gen_ai.output.messages"]))
    assert message["finish_reason"] == "length"
    assert message["trimmed"] is True
    assert 400 < len(message["parts"][0]["content"]) < 2048
    assert int(str(told["llm_proxy.trimmed.output.messages.bytes"])) > 50_000


texts = st.text(max_size=300)
parts = st.one_of(
    texts,
    st.none(),
    st.lists(
        st.one_of(
            st.fixed_dictionaries({"type": st.just("text"), "text": texts}),
            st.fixed_dictionaries(
                {"type": st.just("image_url"), "image_url": st.fixed_dictionaries({"url": texts})}
            ),
            st.fixed_dictionaries({"type": texts, "other": texts}),
        ),
        max_size=4,
    ),
)
calls = st.lists(
    st.fixed_dictionaries(
        {
            "id": texts,
            "function": st.fixed_dictionaries({"name": texts, "arguments": texts | st.just('{"a": 1}')}),
        }
    ),
    max_size=3,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "odd"]), "content": parts},
        optional={"reasoning": texts, "tool_calls": calls, "tool_call_id": texts, "name": texts},
    ),
    max_size=8,
)


@given(messages, texts, st.integers(0, 4000))
def test_content_is_always_valid_json_within_its_budget(
    sent: list[dict[str, object]], reply: str, budget: int
) -> None:
    body = msgspec.json.encode(
        {"messages": sent, "tools": [{"type": "function", "function": {"name": reply}}]}
    )
    choices = tuple(ChoiceReply(index=i, text=reply, finish="stop") for i in range(3))
    call = msgspec.structs.replace(plain_call(1), request=body, reply=Reply(choices=choices))
    whole = attributes_of(span_of(call, 10_000_000))
    told = attributes_of(span_of(call, budget))
    for key in CONTENT:
        text = str(told.get(key, "[]"))
        assert len(text.encode()) <= max(budget, 2)
        trimmed = f"llm_proxy.trimmed.{key.removeprefix('gen_ai.')}.sha256" in told
        assert trimmed is (len(str(whole.get(key, "")).encode()) > budget)
        if not trimmed:
            assert told.get(key) == whole.get(key)
        for message in json.loads(text):
            assert isinstance(message, dict)
            if key == "gen_ai.output.messages":
                assert message["finish_reason"] == "stop"
