"""Parts of the console's pages: figures, amounts, addresses, and how much of a run one page takes in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from urllib.parse import unquote, urljoin

import pytest

from llm_proxy.admin.arguments import said, visible
from llm_proxy.admin.story import NewMessage, Step
from llm_proxy.chat.events import ReasoningKind
from llm_proxy.chat.reply import ChoiceReply, ReasoningPart, Reply, ToolCall
from llm_proxy.console.pages import amount, path, unpathed
from llm_proxy.console.plots import MOST_DAYS, days_between, stacked
from llm_proxy.console.room import MANY, MOST, OF_CALL, ROOM, Room
from llm_proxy.records.view import CallView, Status


def _reply(text: str, calls: int = 0) -> Reply:
    made = [ToolCall(choice=0, index=n, id=f"c{n}", name="t", arguments="{}") for n in range(calls)]
    return Reply(choices=(ChoiceReply(index=0, text=text, calls=tuple(made)),), complete=True)


def _step(*said: str, reply: Reply | None = None, received: Reply | None = None) -> Step:
    call = CallView(id="1", run_id="r", agent_id="a", started_us=1, status=Status.OK, reply=reply)
    return Step(call=call, new=tuple(NewMessage(role="user", text=text) for text in said), received=received)


def test_a_figure_is_ascii_and_says_the_same() -> None:
    figure = stacked(["2026-11-01"], [("2026-11-01", "team 😀 é", 1.5)], "US dollars")
    assert figure.isascii()
    assert json.loads(figure)["data"][0]["name"] == "team 😀 é"


def test_the_days_of_a_time_are_told_unless_they_are_too_many() -> None:
    day = 86_400_000_000
    assert days_between(day, 3 * day) == ["1970-01-02", "1970-01-03"]
    assert days_between(day, day) == ["1970-01-02"]
    assert len(days_between(0, MOST_DAYS * day)) == MOST_DAYS
    assert days_between(0, MOST_DAYS * day + 1) == []
    began = time.process_time()
    assert days_between(-62_135_596_800_000_000, 1_700_000_000_000_000) == []
    assert time.process_time() - began < 0.05


@pytest.mark.parametrize(
    ("value", "unit", "told"),
    [
        (1e-06, "usd", "$0.000001"),
        (0.1 + 0.2, "usd", "$0.30"),
        (1234.5, "usd", "$1,234.50"),
        (50.0, "usd", "$50.00"),
        (1234, "requests", "1,234"),
    ],
)
def test_an_amount_is_told_in_its_unit(value: float, unit: str, told: str) -> None:
    assert amount(value, unit) == told


@pytest.mark.parametrize("id_", ["a", "a/export", ".", "..", "...", "a b", "%2e", "ä", "../x"])
def test_an_id_is_a_segment_that_stands_still(id_: str) -> None:
    address = urljoin("http://x/console/runs/", path(id_))
    assert unpathed(unquote(address.removeprefix("http://x/console/runs/"))) == id_


@pytest.mark.parametrize("text", ["é" + "a" * 3_000_000, "日本" * 1_500_000, ("é" * 99 + "\n") * 30_000])
def test_what_can_be_seen_is_told_quickly(text: str) -> None:
    """Not character by character: that takes 13 to 30 times as long as the same length of ASCII."""

    def seconds(told: Callable[[str], str], text: str) -> float:
        began = time.thread_time()
        assert told(text) == text
        return time.thread_time() - began

    for told in (visible, said):
        assert seconds(told, text) < 6 * seconds(told, "a" * len(text))


def test_what_cant_be_seen_is_told_wherever_it_stands() -> None:
    assert visible("é\u202eé\n\u3164x\ud800") == "é\\u202eé\n\\u3164x\\ud800"


def test_texts_that_fit_are_told_whole() -> None:
    step = _step("a", "b" * MOST, reply=_reply("c", calls=3), received=_reply("d"))
    assert Room().step(step) == step


def test_a_text_is_cut_and_says_so() -> None:
    found = Room().step(_step("x" * (MOST + 1))).new[0].text
    assert found.startswith("x" * MOST + " … (cut; the export has all 65,537 characters, SHA-256 ")
    assert len(found) < MOST + 120


def test_what_was_cut_is_compared_as_it_was() -> None:
    long = "x" * MOST
    told = Room().step(_step(reply=_reply(long + "a"), received=_reply(long + "b")))
    same = Room().step(_step(reply=_reply(long + "a"), received=_reply(long + "a")))
    assert told.call.reply is not None
    assert told.received is not None
    assert told.call.reply.choices[0].text != told.received.choices[0].text
    assert same.call.reply == same.received


def test_a_page_has_room_for_so_much_and_each_call_for_something() -> None:
    room = Room()
    steps = [room.step(_step(*[f"{number} {n}" + "x" * MOST for n in range(30)])) for number in range(50)]
    sizes = [sum(len(message.text) for message in step.new) for step in steps]
    assert sum(sizes) < ROOM + 50 * OF_CALL + 50 * 30 * 120
    assert min(sizes) > OF_CALL


def test_of_many_parts_the_number_is_told() -> None:
    step = Room().step(_step(*map(str, range(MANY + 5)), reply=_reply("x", calls=MANY + 7)))
    assert step.new[0] == NewMessage(
        role="left out", text="5 messages before these are not shown: the export has them."
    )
    assert [message.text for message in step.new[1:]] == [str(n) for n in range(5, MANY + 5)]
    assert step.call.reply is not None
    calls = step.call.reply.choices[0].calls
    assert len(calls) == MANY + 1
    assert calls[-1].arguments == "7 further tool calls are not shown: the export has them."


def test_of_many_choices_and_thoughts_the_number_is_told() -> None:
    thoughts = tuple(ReasoningPart(kind=ReasoningKind.RAW, text=str(n)) for n in range(MANY + 3))
    choices = tuple(ChoiceReply(index=n, reasoning=thoughts) for n in range(MANY + 4))
    reply = Room().step(_step(reply=Reply(choices=choices, complete=True))).call.reply
    assert reply is not None
    assert [len(reply.choices), reply.choices[-2].index, reply.choices[-1].index] == [MANY + 1, MANY - 1, -1]
    assert reply.choices[-1].text == "4 further choices are not shown: the export has them."
    assert len(reply.choices[0].reasoning) == MANY + 1
    assert reply.choices[0].reasoning[-1].text == "3 further parts are not shown: the export has them."
