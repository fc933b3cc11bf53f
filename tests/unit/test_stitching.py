"""Conversations are known by what was said, however an agent writes it; ends of equal ones are told apart."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.records.prefixes import End
from llm_proxy.stitching import MOST_ENDS, Thread, Threads, chosen, gone_on_from
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_completions import OPENAI_COMPLETIONS
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES
from llm_proxy.wire.retelling import Called

THREADS = Threads(b"k" * 32)
WHOSE = ("openai_chat", "", "", "")


def thread(
    *messages: Any, dialect: Dialect = OPENAI_CHAT, whose: tuple[str, ...] = WHOSE, **more: Any
) -> Thread:
    key = "input" if dialect is OPENAI_RESPONSES else "messages"
    body = {"model": "m", key: list(messages), "max_tokens": 9} | more
    if dialect is OPENAI_RESPONSES:
        del body["max_tokens"]
    request = dialect.parse(json.dumps(body).encode())
    found = THREADS.of(dialect, request, request.messages, whose)
    assert found is not None
    return found


def end(asked: Thread, text: str = "", *calls: tuple[str, str], dialect: Dialect = OPENAI_CHAT) -> bytes:
    found = THREADS.end(dialect, asked, text, [Called(*call) for call in calls])
    assert found is not None
    return found


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def model(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


HI, AGAIN = user("hi"), user("again")
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1,"b":[2]}'}}
ARGUMENTS = '{ "b": [2], "a": 1 }'


@pytest.mark.parametrize(
    "turn",
    [
        model("Hello there."),
        model(" Hello\nthere. "),
        model([{"type": "text", "text": "Hello there."}]),
        model("Hello there.", refusal=None, annotations=[], reasoning_content="Hm."),
        model("<think>Hm.</think>\n\nHello there."),
    ],
)
def test_a_reply_is_known_however_it_comes_back(turn: Any) -> None:
    asked = thread(HI)
    assert asked.ends == ()
    gone_on = thread(HI, turn, AGAIN)
    assert gone_on.ends == (end(asked, "Hello there."),)
    assert end(asked, "<think>Hm.</think>Hello there.") == end(asked, "Hello there.")
    assert thread(HI, turn).ends == gone_on.ends  # sent as it stands, to be gone on with
    assert thread(HI, model("Hello, there."), AGAIN).ends != gone_on.ends


def test_calls_are_known_by_ids_and_arguments() -> None:
    told = end(thread(HI), "I look.", ("c1", ARGUMENTS))
    for turn in (model(None, tool_calls=[CALL]), model("Looking.", tool_calls=[CALL])):
        assert thread(HI, turn, {"role": "tool", "tool_call_id": "c1", "content": "7"}).ends == (told,)
    assert end(thread(HI), "I look.", ("c2", ARGUMENTS)) != told
    assert end(thread(HI), "I look.", ("c1", '{"a":1}')) != told
    assert end(thread(HI), "I look.", ("c1", ARGUMENTS), ("c2", ARGUMENTS)) != told
    assert end(thread(HI), "I look.") != told
    assert THREADS.end(OPENAI_CHAT, thread(HI), " \n", []) is None


@pytest.mark.parametrize(
    "other",
    [
        {"whose": ("openai_chat", "ann", "", "")},
        {"whose": ("openai_chat", "", "ann", "")},
        {"whose": ("openai_chat,", "", "", "")},
    ],
)
def test_what_must_not_be_joined_isnt(other: dict[str, Any]) -> None:
    assert thread(HI, model("yes"), AGAIN, **other).ends != thread(HI, model("yes"), AGAIN).ends


def test_messages_are_known_however_they_are_written() -> None:
    marked = {"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}
    said = thread(HI, model("yes"), AGAIN).ends
    assert thread(user([marked]), model("yes"), AGAIN).ends == said
    assert thread({"content": "hi", "role": "user"}, model("yes"), AGAIN).ends == said
    assert thread(user("hi "), model("yes"), AGAIN).ends != said
    assert thread(user("hi", name="ann"), model("yes"), AGAIN).ends != said
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    other = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAB"}}
    assert thread(user([picture]), model("yes"), AGAIN).ends != thread(user([other]), model("yes")).ends
    long = "x" * 300_000
    assert thread(user(long), model("yes")).ends != thread(user(long + "x"), model("yes")).ends


def test_instructions_dont_count_but_are_told_apart() -> None:
    terse = {"role": "system", "content": "Be terse."}
    kind = {"role": "developer", "content": "Be kind."}
    plain, under, other = (thread(*front, HI, model("yes"), AGAIN) for front in ((), (terse,), (terse, kind)))
    assert plain.ends == under.ends == other.ends
    assert len({plain.system, under.system, other.system}) == 3
    late = thread(HI, terse, model("yes"), AGAIN)
    assert late.ends != plain.ends
    alone, second = thread(terse), thread(kind)
    assert end(alone, "yes") != end(second, "yes")  # where nothing else was said, they are what was said
    assert thread(terse, model("yes"), HI).ends == (end(alone, "yes"),)


def test_instructions_beside_the_messages_are_told_apart() -> None:
    asked = thread(HI, dialect=ANTHROPIC_MESSAGES, system="Be terse.")
    other = thread(HI, dialect=ANTHROPIC_MESSAGES, system="Be kind.")
    assert asked.system != other.system
    assert end(asked, "yes", dialect=ANTHROPIC_MESSAGES) == end(other, "yes", dialect=ANTHROPIC_MESSAGES)
    assert thread(HI, dialect=OPENAI_RESPONSES, instructions="Be terse.").system != b""


def test_messages_blocks_and_prefills() -> None:
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"b": [2], "a": 1}}
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    text = {"type": "text", "text": "I look.", "cache_control": {"type": "ephemeral"}}
    asked = thread(HI, dialect=ANTHROPIC_MESSAGES)
    told = end(asked, "I look.", ("t1", '{"a":1,"b":[2]}'), dialect=ANTHROPIC_MESSAGES)
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "7"}
    as_block = {**result, "content": [{"type": "text", "text": "7"}], "cache_control": {"type": "ephemeral"}}
    histories = [
        thread(HI, model(blocks), user([answer]), model("so"), AGAIN, dialect=ANTHROPIC_MESSAGES)
        for blocks, answer in (([thought, text, use], result), ([use], as_block))
    ]
    assert histories[0].ends == histories[1].ends
    assert histories[0].ends[1] == told
    begun = thread(HI, model("{"), dialect=ANTHROPIC_MESSAGES)
    for turns in ((model('{"a": 1}'),), (model("{"), model('"a": 1}'))):
        goes_on = thread(HI, *turns, AGAIN, dialect=ANTHROPIC_MESSAGES)
        assert goes_on.ends == (end(begun, '"a": 1}', dialect=ANTHROPIC_MESSAGES),)


def test_responses_items_are_one_turn() -> None:
    asked = thread(HI, dialect=OPENAI_RESPONSES)
    told = end(asked, "Looking. Done", ("c1", '{"a":1}'), ("c2", "free text"), dialect=OPENAI_RESPONSES)
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'}
    custom = {"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": "free text"}
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    output = {"type": "function_call_output", "call_id": "c1", "output": "7", "id": "fco_1"}
    message = {"type": "message", "id": "msg_1", "status": "completed"} | model(
        [{"type": "output_text", "text": "Looking. Done", "annotations": []}]
    )
    for items in ([reasoning, search, message, call, custom], [call, custom], [message, call, custom]):
        assert thread(HI, *items, output, dialect=OPENAI_RESPONSES).ends == (told,)
    assert thread(HI, call, output, dialect=OPENAI_RESPONSES).ends != (told,)
    typed = {"type": "message", "id": "msg_0", **HI}
    bare = {key: value for key, value in output.items() if key != "id"}
    ways = [(typed, call, custom, output), (HI, reasoning, call, custom, bare)]
    first, second = (thread(*way, model("so"), AGAIN, dialect=OPENAI_RESPONSES).ends for way in ways)
    assert first == second
    one, other = ({"type": "item_reference", "id": id_} for id_ in ("a", "b"))
    assert (
        thread(one, model("x"), dialect=OPENAI_RESPONSES).ends
        != thread(other, model("x"), dialect=OPENAI_RESPONSES).ends
    )


def test_two_messages_in_a_row_are_one_turn() -> None:
    asked = thread(HI, dialect=OPENAI_RESPONSES)
    told = end(asked, "One. Two.", dialect=OPENAI_RESPONSES)
    assert thread(HI, model("One."), model("Two."), AGAIN, dialect=OPENAI_RESPONSES).ends == (told,)


def test_only_so_many_turns_of_a_history_are_looked_for() -> None:
    said: list[Any] = []
    for n in range(MOST_ENDS + 5):
        said += [user(f"q{n}"), model(f"a{n}")]
    ends = thread(*said, AGAIN).ends
    assert len(ends) == len(set(ends)) == MOST_ENDS
    assert ends[0] == end(thread(*said[:-1]), f"a{MOST_ENDS + 4}")
    assert thread(*said).ends[0] == ends[0]
    assert len(thread(*said).ends) == MOST_ENDS


def test_what_is_no_conversation_has_no_thread() -> None:
    request = OPENAI_COMPLETIONS.parse(b'{"model":"m","prompt":"hi"}')
    assert THREADS.of(OPENAI_COMPLETIONS, request, request.messages, WHOSE) is None


def test_an_input_of_text_is_a_message() -> None:
    text = OPENAI_RESPONSES.parse(b'{"model":"m","input":"hi"}')
    found = THREADS.of(OPENAI_RESPONSES, text, text.messages, WHOSE)
    assert found == thread(HI, dialect=OPENAI_RESPONSES)


@pytest.mark.parametrize(
    "raw", [b"7", b'"x"', b'{"role":7}', b"[" * 3_000 + b"]" * 3_000, b'{"content":[1e999]}']
)
def test_messages_of_no_known_shape_are_taken_as_they_stand(raw: bytes) -> None:
    request = OPENAI_CHAT.parse(json.dumps({"model": "m", "messages": [HI, model("yes")]}).encode())
    hands = [Threads(b"k" * 32), Threads(b"k" * 32)]
    odd = [
        threads.of(OPENAI_CHAT, _with_first(request, raw), [b"%d" % n for n in range(2)], WHOSE)
        for threads in hands
    ]
    assert odd[0] is not None
    assert odd[0] == odd[1]
    assert odd[0].ends != thread(HI, model("yes")).ends


def _with_first(request: Any, raw: bytes) -> Any:
    import msgspec  # noqa: PLC0415

    return msgspec.structs.replace(request, messages=(raw, *request.messages[1:]))


def test_a_secret_makes_the_hashes() -> None:
    request = OPENAI_CHAT.parse(json.dumps({"model": "m", "messages": [HI, model("yes")]}).encode())
    other = Threads(b"j" * 32).of(OPENAI_CHAT, request, request.messages, WHOSE)
    assert other is not None
    assert set(other.ends).isdisjoint(thread(HI, model("yes")).ends)
    assert THREADS.named(WHOSE, "conv_1") != THREADS.named(WHOSE, "conv_2")
    assert THREADS.named(WHOSE, "conv_1") != THREADS.named((*WHOSE[:-1], "x"), "conv_1")


def ended(call: str, run: str, newest: str = "", system: bytes = b"") -> End:
    return End(b"h", call, run, system, newest or call)


def test_an_end_is_gone_on_from_once() -> None:
    assert chosen([ended("1", "a")], b"") == ended("1", "a")
    two = [ended("2", "b"), ended("1", "a")]
    assert chosen(two, b"") == two[0]  # the newest
    assert chosen([ended("2", "b", "3"), ended("1", "a")], b"") == ended("1", "a")
    assert chosen([ended("2", "b"), ended("1", "a", "3")], b"") == ended("2", "b")


def test_an_older_turn_counts_only_where_nothing_else_ended_so() -> None:
    older = End(b"old", "1", "a", b"", "2")
    assert gone_on_from((b"new", b"old"), [older], b"") == older
    newer = End(b"new", "5", "b", b"", "5")
    assert gone_on_from((b"new", b"old"), [older, newer], b"") == newer
    assert gone_on_from((b"new", b"old"), [older, End(b"old", "3", "c", b"", "3")], b"") is None
    assert gone_on_from((b"new",), [older], b"") is gone_on_from((), [older], b"") is None


def test_retries_and_branches() -> None:
    assert chosen([ended("1", "a", "9")], b"") == ended("1", "a", "9")
    assert chosen([ended("3", "a", "9"), ended("1", "a", "9")], b"") == ended("3", "a", "9")
    over_before = [ended("5", "b", "6"), ended("1", "a", "3")]
    assert chosen(over_before, b"") == over_before[0]
    assert chosen([ended("5", "b", "6"), ended("1", "a", "7")], b"") is None  # either may be meant


def test_the_same_instructions_come_first() -> None:
    mine, other = ended("1", "a", system=b"x"), ended("2", "b", system=b"y")
    assert chosen([other, mine], b"x") == mine
    assert chosen([other], b"x") == other  # a hand-over, or a clock in the instructions
    assert chosen([other, mine], b"z") is None
    assert chosen([other, ended("1", "a", "9", system=b"x")], b"z") == other
    assert chosen([ended("2", "b", "4", b"y"), ended("1", "a", "9", b"x")], b"z") is None
