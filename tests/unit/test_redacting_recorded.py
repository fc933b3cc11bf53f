"""What is masked of content before it is kept: secrets and a policy's values, with the JSON kept whole."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from llm_proxy.intake import Hole
from llm_proxy.recorded import Apart, envelope_of, kept, settled
from llm_proxy.records.evidence import BlobDraft
from llm_proxy.redacting.recorded import RecordMask, record_mask
from llm_proxy.redacting.recorded_replies import masked_reply
from llm_proxy.redacting.rules import Redaction, Rule
from llm_proxy.wire.dialects import DIALECTS

KEY = "sk-proj-Ab3dEf6hIj9kLm2nOp5qRs8t"
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r"
PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqh/kiG9w0+BAQEFAAS\nCBKcw==\n-----END PRIVATE KEY-----"
SECRETS = [
    KEY,
    TOKEN,
    PEM,
    "AKIAQ3EGVYV7BLRTOKWS",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    "SG.aB3-efghijklmnop_qrs.Tu7vwxyz0123456789",
]
CHAT = DIALECTS["openai_chat"]


def mask_of(*rules: Rule) -> RecordMask:
    found = record_mask(Redaction(b"k" * 32, records=rules), b"k" * 32, mask_secrets=True)
    assert found is not None
    return found


MASK = mask_of()


def masked(data: bytes, mask: RecordMask = MASK) -> bytes:
    found = mask.content(data)
    return data if found is None else found


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("ascii_", [True, False])
def test_a_secret_in_any_string_is_masked_and_the_json_stays_whole(secret: str, ascii_: bool) -> None:
    value: Any = {
        "role": "user",
        "content": [{"type": "text", "text": f"é “use”\n{secret}\tand\\ go"}],
        secret: 1,
    }
    nested = json.dumps({"env": f"a\n{secret}"})
    value["tool_calls"] = [{"function": {"arguments": nested}}]
    out = masked(json.dumps(value, ensure_ascii=ascii_).encode())
    assert secret.encode() not in out
    read = json.loads(out)
    assert read["content"][0]["text"] == "é “use”\n[redacted]\tand\\ go"
    assert read["[redacted]"] == 1
    assert json.loads(read["tool_calls"][0]["function"]["arguments"]) == {"env": "a\n[redacted]"}


def test_a_secret_that_is_spelt_with_escapes_is_masked() -> None:
    spelt = "".join(f"\\u{ord(char):04x}" for char in KEY)
    assert json.loads(masked(b'{"content": "it is %b"}' % spelt.encode())) == {"content": "it is [redacted]"}
    some = KEY.replace("p", "\\u0070")
    assert json.loads(masked(b'{"content": "it is %b"}' % some.encode())) == {"content": "it is [redacted]"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b'{"a": "b"',
        b"\xff\xfe\x00",
        b'"sk-short"',
        '{"a":  "ü\\u00e9 task-list-of-the-day"}'.encode(),
    ],
)
def test_what_holds_nothing_stays_byte_for_byte(data: bytes) -> None:
    assert MASK.content(data) is None
    assert masked_reply(data, MASK) is None


@pytest.mark.parametrize(
    "data", [b'{"a": "' + KEY.encode(), b"\xff " + KEY.encode() + b"\x00", b'{"a" ' + KEY.encode()]
)
def test_a_secret_in_what_is_no_json_is_masked(data: bytes) -> None:
    assert KEY.encode() not in masked(data)


def test_a_policys_values_are_masked_in_what_is_said_and_not_in_names() -> None:
    card = mask_of(Rule("card", "*", (), "card_number", "last4", None))
    body = {
        "id": "call_4111111111111111",
        "content": "it is 4111 1111 1111 1111",
        "arguments": {"n": 4111111111111111},
    }
    out = json.loads(masked(json.dumps(body).encode(), card))
    assert out == {"id": body["id"], "content": "it is ****1111", "arguments": {"n": "****1111"}}


def _apart(*messages: dict[str, Any], **more: Any) -> tuple[bytes, Apart]:
    body = json.dumps({"model": "m", "messages": list(messages)} | more, indent=1).encode()
    request = CHAT.parse(body)
    ids = [b"%032d" % n for n in range(len(messages))]
    holes = tuple(Hole(*span, id_) for span, id_ in zip(request.message_spans, ids, strict=True))
    drafts = tuple(BlobDraft(id_, 1, bytes(raw)) for id_, raw in zip(ids, request.messages, strict=True))
    return body, Apart(body, holes, tuple(ids), drafts)


def _whole(apart: Apart, content: Any, blobs: Any) -> bytes:
    """As `archive.content.rebuild` does."""
    stored = {draft.id.hex(): draft.content for draft in blobs}
    envelope, used, out = content.envelope.encode(), 0, b""
    for at, id_ in content.cuts:
        out += envelope[used:at] + stored[id_]
        used = at
    return out + envelope[used:]


def test_an_unmasked_body_is_rebuilt_byte_for_byte() -> None:
    body, apart = _apart({"role": "user", "content": "hé"}, {"role": "user", "content": "b"}, user="ü")
    content, blobs, _ = kept(apart, CHAT, MASK)
    assert (_whole(apart, content, blobs), content.masked) == (body, False)
    assert envelope_of(apart)[0] == content.envelope


def test_a_masked_envelope_keeps_its_messages_in_their_places() -> None:
    said = [{"role": "user", "content": f"é {KEY}"}, {"role": "user", "content": "b"}]
    body, apart = _apart(*said, user="ü" + KEY, metadata={"k": KEY})
    content, blobs, _ = kept(apart, CHAT, MASK)
    out = _whole(apart, content, blobs)
    assert content.masked
    assert json.loads(out) == json.loads(body.decode().replace(KEY, "[redacted]"))


@pytest.mark.parametrize("tool", ["crm_read", "web_fetch", None])
def test_a_field_is_masked_in_the_results_of_its_tools(tool: str | None) -> None:
    rule = Rule("iban", "crm_*", ("customer", "iban"), None, "mask", None)
    result = json.dumps({"customer": {"iban": "DE89", "name": "Jo"}, "key": KEY})
    _, apart = _apart({"role": "tool", "tool_call_id": "c1", "content": result})
    mask = mask_of(rule)
    content, blobs = settled(
        *kept(apart, CHAT, mask), mask, lambda message, n, id_: tool if id_ == "c1" else "x"
    )
    out = json.loads(json.loads(_whole(apart, content, blobs))["messages"][0]["content"])
    iban = "DE89" if tool == "web_fetch" else "[redacted]"
    assert out == {"customer": {"iban": iban, "name": "Jo"}, "key": "[redacted]"}
    assert content.masked


def test_a_quick_look_at_ordinary_text_is_cheap() -> None:
    text = (
        b"The quick brown fox jumps over the lazy dog, and task_list() returns a risk-free result. " * 3_000
    )
    began = time.thread_time()
    assert not MASK.holds(text)
    assert (time.thread_time() - began) / len(text) * 1024 < 50e-6  # ten times what it takes alone


def test_log_probabilities_go_where_something_is_masked() -> None:
    tokens = [{"token": part, "bytes": list(part.encode()), "logprob": -1} for part in (KEY[:9], KEY[9:])]
    choice = {"index": 0, "message": {"role": "assistant", "content": KEY}, "logprobs": {"content": tokens}}
    out = masked_reply(json.dumps({"choices": [choice]}).encode(), MASK)
    assert out is not None
    read = json.loads(out)["choices"][0]
    assert (read["logprobs"], read["message"]["content"]) == (None, "[redacted]")
