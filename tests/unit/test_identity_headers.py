"""Headers: where the key stands, and what they say of the run, the user and the tags."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.errors import Kind, ProxyError
from llm_proxy.identity.headers import MAX_ID, MAX_TAGS, Hints, checked_id, credential, read_hints

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Headers = dict[bytes, bytes]


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({}, None),
        ({b"authorization": b"Bearer lp-1"}, "lp-1"),
        ({b"authorization": b"bearer   lp-1  "}, "lp-1"),
        ({b"authorization": b"  Bearer lp-1"}, "lp-1"),
        ({b"authorization": b"Bearer"}, None),
        ({b"authorization": b"Bearer "}, None),
        ({b"authorization": b"Bearer    "}, None),
        ({b"authorization": b""}, None),
        ({b"authorization": b"Basic dTpw"}, None),
        ({b"authorization": b"Basic dTpw", b"x-api-key": b"lp-2"}, "lp-2"),
        ({b"authorization": b"Bearer ", b"x-api-key": b"lp-2"}, "lp-2"),
        ({b"authorization": b"Bearer lp-1", b"x-api-key": b"lp-2"}, "lp-1"),
        ({b"x-api-key": b"lp-2"}, "lp-2"),
        ({b"api-key": b"lp-3"}, "lp-3"),
        ({b"x-litellm-api-key": b"Bearer lp-4"}, "lp-4"),
        ({b"x-api-key": b"", b"api-key": b"lp-3"}, "lp-3"),
        ({b"x-api-key": b"Bearer "}, None),
        ({b"authorization": "Bearer schlüssel".encode()}, "schlüssel"),
        ({b"authorization": b"Bearer \xff\xfe"}, "ÿþ"),
    ],
)
def test_the_key_that_was_shown(headers: Headers, key: str | None) -> None:
    assert credential(headers) == key


@given(st.dictionaries(st.sampled_from([b"authorization", b"x-api-key", b"api-key"]), st.binary(max_size=40)))
def test_no_header_makes_an_empty_key_or_an_error(headers: Headers) -> None:
    key = credential(headers)
    assert key is None or key.strip()


@pytest.mark.parametrize(
    "name",
    [
        b"x-run-id",
        b"x-session-id",
        b"x-litellm-session-id",
        b"x-litellm-trace-id",
        b"x-portkey-trace-id",
        b"helicone-session-id",
        b"x-claude-code-session-id",
    ],
)
def test_the_run_is_read_from_any_of_its_names(name: bytes) -> None:
    assert read_hints({name: b" run-1 "}).run_id == "run-1"
    assert read_hints({name: b"other", b"x-run-id": b"run-1"}).run_id == "run-1"


@pytest.mark.parametrize("name", [b"x-user-id", b"x-litellm-end-user-id", b"helicone-user-id"])
def test_the_user_is_read_from_any_of_its_names(name: bytes) -> None:
    assert read_hints({name: "jürgen".encode()}).user_id == "jürgen"


@pytest.mark.parametrize(
    ("baggage", "run"),
    [
        (b"run.id=r%201;ttl=3, other=2", "r 1"),
        (b"other=2,run.id = r1", "r1"),
        (b"run.id", ""),
        (b",,;=,=x", ""),
        (b"\xff\xfe=\xff", ""),
    ],
)
def test_the_run_in_baggage(baggage: bytes, run: str) -> None:
    assert read_hints({b"baggage": baggage}).run_id == run
    assert read_hints({b"baggage": baggage, b"x-run-id": b"mine"}).run_id == "mine"


@pytest.mark.parametrize(
    "headers",
    [
        {b"x-run-id": b"a" * (MAX_ID + 1)},
        {b"x-run-id": b"a\tb"},
        {b"x-parent-run-id": b"a\x00b"},
        {b"x-user-id": b"a\x7fb"},
        {b"x-tags": b"ok,\x1b[31m"},
        {b"baggage": b"run.id=a%0d%0ab"},
    ],
)
def test_an_id_that_could_not_stand_in_a_header_or_a_log_is_refused(headers: Headers) -> None:
    with pytest.raises(ProxyError) as refused:
        read_hints(headers)
    assert refused.value.kind is Kind.INVALID_REQUEST
    assert refused.value.param
    assert refused.value.param in refused.value.message


def test_the_longest_id_is_taken() -> None:
    assert checked_id("é" * MAX_ID, "x") == "é" * MAX_ID


def test_tags_are_told_apart_trimmed_and_bounded() -> None:
    assert read_hints({b"x-tags": b" a, b,,a ,c"}).tags == ("a", "b", "c")
    many = ",".join(f"t{n}" for n in range(MAX_TAGS * 2)).encode()
    assert len(read_hints({b"x-tags": many}).tags) == MAX_TAGS
    assert read_hints({b"x-litellm-tags": b"x"}).tags == ("x",)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (TRACE, TRACE),
        (f" {TRACE.upper()} ", TRACE),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", ""),
        (TRACE.replace("b7ad6b7169203331", "0" * 16), ""),
        ("ff" + TRACE[2:], ""),
        (TRACE + "-extra", ""),
        (TRACE + "\n", TRACE),
        ("nonsense", ""),
    ],
)
def test_only_a_valid_traceparent_is_joined(value: str, kept: str) -> None:
    assert read_hints({b"traceparent": value.encode()}).traceparent == kept


def test_no_header_says_nothing() -> None:
    assert read_hints({}) == Hints()


@given(
    st.dictionaries(
        st.sampled_from([b"x-run-id", b"x-user-id", b"x-tags", b"baggage", b"traceparent"]),
        st.binary(max_size=300),
    )
)
def test_any_bytes_give_printable_hints_or_a_refusal(headers: Headers) -> None:
    try:
        hints = read_hints(headers)
    except ProxyError:
        return
    for value in (hints.run_id, hints.parent_run_id, hints.user_id, hints.traceparent, *hints.tags):
        assert len(value) <= MAX_ID
        assert value.isprintable()


def test_portkeys_metadata_is_tags_and_a_user() -> None:
    sent = b'{"_user": "ada", "team": "growth", "beta": true, "n": 3, "odd": [1], "none": null, "e": ""}'
    hints = read_hints({b"x-portkey-metadata": sent})
    assert hints.user_id == "ada"
    assert hints.tags == ("team=growth", "beta=true", "n=3")
    named = {b"x-tags": b"one", b"x-user-id": b"bob", b"x-portkey-metadata": sent}
    assert (read_hints(named).tags, read_hints(named).user_id) == (("one",), "bob")


def test_a_comma_in_metadata_makes_no_second_tag() -> None:
    assert read_hints({b"x-portkey-metadata": b'{"a": "x,y"}'}).tags == ("a=x%2Cy",)


def test_of_much_metadata_as_many_tags_are_kept_as_of_a_list() -> None:
    sent = json.dumps({f"k{n}": "v" for n in range(MAX_TAGS + 9)}).encode()
    assert len(read_hints({b"x-portkey-metadata": sent}).tags) == MAX_TAGS


@pytest.mark.parametrize("sent", [b"team=growth", b"[1]", b'"a"', b"{", b"{" * 90_000, b"\xff"])
def test_metadata_that_is_no_object_is_refused(sent: bytes) -> None:
    with pytest.raises(ProxyError, match="x-portkey-metadata is no JSON object") as error:
        read_hints({b"x-portkey-metadata": sent})
    assert error.value.kind is Kind.INVALID_REQUEST


@pytest.mark.parametrize("sent", [b'{"a": "x\\n"}', json.dumps({"a": "x" * 257}).encode()])
def test_metadata_that_can_stand_in_no_record_is_refused(sent: bytes) -> None:
    with pytest.raises(ProxyError, match="x-portkey-metadata"):
        read_hints({b"x-portkey-metadata": sent})


def test_the_run_above_is_named_by_header_or_baggage_and_shown_by_its_token() -> None:
    assert read_hints({b"x-parent-run-id": b"p"}).parent_run_id == "p"
    assert read_hints({b"baggage": b"run.id=r,parent.run.id=p%201;x=y"}).parent_run_id == "p 1"
    both = {b"x-parent-run-id": b"p", b"baggage": b"parent.run.id=q"}
    assert read_hints(both).parent_run_id == "p"
    assert read_hints({b"x-run-token": b" lp-secret "}).run_token == "lp-secret"
    with pytest.raises(ProxyError, match=r"baggage parent\.run\.id"):
        read_hints({b"baggage": b"parent.run.id=" + b"x" * (MAX_ID + 1)})
