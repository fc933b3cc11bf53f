"""Responses: whichever calls are denied leave no trace, and no stream can smuggle a call past the judge."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import CallDelta, Frame, Unreadable
from llm_proxy.chat.reply import Assembly, Reply
from llm_proxy.wire.openai_responses.edit import edit_body, edit_frames
from llm_proxy.wire.openai_responses.reader import Reader
from llm_proxy.wire.openai_responses.reply import read_body
from llm_proxy.wire.sse import read_one, render

Json = dict[str, Any]
ODD = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@dataclass(frozen=True)
class Case:
    output: list[Json]
    denied: dict[tuple[int, int], str]

    def kept(self) -> list[Json]:
        return [item for at, item in enumerate(self.output) if (0, at) not in self.denied]


@st.composite
def items(draw: st.DrawFn, at: int) -> Json:
    """One item of an output. A call's secret stands in its name and arguments, and nowhere else."""
    secret, odd = f"s3cr3t{at}y", draw(ODD)
    call: Json = {"id": f"it_{at}", "call_id": f"call_{at}", "name": f"tool_{secret}", "vendor": [1.0]}
    match draw(st.sampled_from(["message", "reasoning", "function", "custom", "shell"])):
        case "message":
            part = {"type": "output_text", "text": f"said {odd}", "annotations": []}
            return {"id": f"it_{at}", "type": "message", "role": "assistant", "content": [part]}
        case "reasoning":
            return {"id": f"it_{at}", "type": "reasoning", "summary": [], "encrypted_content": f"g_{at}"}
        case "function":
            return {**call, "type": "function_call", "arguments": json.dumps({secret: odd})}
        case "custom":
            return {**call, "type": "custom_tool_call", "input": f"{secret} {odd}"}
        case _:
            return {**call, "type": "shell_call", "action": {"commands": [secret, odd]}}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    output = [draw(items(at)) for at in range(draw(st.integers(0, 5)))]
    calls = [at for at, item in enumerate(output) if "call_id" in item]
    return Case(output, {(0, at): f"note {at}." for at in calls if draw(st.booleans())})


def fold(frames: list[Frame]) -> Reply:
    assembly = Assembly()
    for frame in frames:
        for event in frame.events:
            assembly.add(event)
    assert assembly.unreadable == ""
    return assembly.reply()


def check(case: Case, after: bytes, output: list[Json], reply: Reply) -> None:
    for at, item in enumerate(case.output):
        if "call_id" in item:
            assert (f"s3cr3t{at}y".encode() in after) == ((0, at) not in case.denied)
    notes = [item for item in output if item["id"].startswith("msg_")]
    assert [item for item in output if item not in notes] == case.kept()
    if case.denied:
        (note,) = notes
        assert output.index(note) == min(at for _, at in case.denied)
        assert note["content"][0]["text"] == "\n\n".join(case.denied[key] for key in sorted(case.denied))
    else:
        assert notes == []
    left = [item["call_id"] for item in case.kept() if "call_id" in item]
    assert [call.id for choice in reply.choices for call in choice.calls] == left
    assert reply.choices[0].finish == ("tool_call" if left else "stop")


@given(cases())
def test_bodies(case: Case) -> None:
    response = {"id": "r", "status": "completed", "vendor": 1.0, "output": case.output}
    body = json.dumps(response, ensure_ascii=False).encode()
    after = edit_body(body, case.denied)
    assert (after is body) == (not case.denied)
    check(case, after, json.loads(after)["output"], fold([read_body(after)]))


@given(cases(), st.data())
def test_streams(case: Case, data: st.DataObject) -> None:
    reader = Reader()
    frames = [reader.read(read_one(frame(event))) for event in numbered(data.draw(events(case.output)))]
    first = next((at for at, f in enumerate(frames) if holds(f)), len(frames) - 1)
    out = [*(f.raw for f in frames[:first]), *edit_frames(frames[first:], case.denied)]
    if not case.denied:
        assert out == [frame.raw for frame in frames]
    sent = [json.loads(read_one(raw).data) for raw in out]
    assert [event["sequence_number"] for event in sent] == list(range(len(sent)))
    added = [event for event in sent if event["type"] == "response.output_item.added"]
    assert [event["output_index"] for event in added] == list(range(len(added)))
    output = sent[-1]["response"]["output"]
    assert [event["item"] for event in sent if event["type"] == "response.output_item.done"] == output
    again = Reader()
    check(case, b"".join(out), output, fold([again.read(read_one(raw)) for raw in out]))


def holds(frame: Frame) -> bool:
    return any(isinstance(event, CallDelta) for event in frame.events)


def frame(event: Json) -> bytes:
    return render(json.dumps(event, ensure_ascii=False).encode(), event["type"])


def numbered(stream: list[Json]) -> list[Json]:
    return [{**event, "sequence_number": at} for at, event in enumerate(stream)]


@st.composite
def events(draw: st.DrawFn, output: list[Json]) -> list[Json]:
    stream: list[Json] = [{"type": "response.created", "response": {"id": "r", "output": []}}]
    for at, item in enumerate(output):
        field = {"function_call": "arguments", "custom_tool_call": "input"}.get(item["type"], "")
        where = {"output_index": at, "item_id": item["id"]}
        begun = {**item, field: ""} if field else item
        stream.append({"type": "response.output_item.added", "output_index": at, "item": begun})
        if field:
            kind = "function_call_arguments" if field == "arguments" else "custom_tool_call_input"
            # Cuts stay out of the secret, so that looking for it in the bytes means something.
            end = item[field].index("y") + 1
            cut = draw(st.integers(end, len(item[field])))
            for piece in (item[field][:cut], item[field][cut:]):
                stream.append({"type": f"response.{kind}.delta", **where, "delta": piece})
            stream.append({"type": f"response.{kind}.done", **where, field: item[field]})
        stream.append({"type": "response.output_item.done", "output_index": at, "item": item})
    final = {"id": "r", "status": "completed", "output": output}
    return [*stream, {"type": "response.completed", "response": final}]


SAID = st.sampled_from(['{"a":1}', '{ "a": 1 }', '{"a":2}', ""])
NAMES = st.sampled_from(["read", "read", "read", "send"])
IDS = st.sampled_from(["call_0", "call_0", "call_1"])


@st.composite
def hostile(draw: st.DrawFn) -> list[Json]:
    """A stream that may say each call in several ways that need not agree."""

    def call(arguments: str) -> Json:
        return {
            "type": draw(st.sampled_from(["function_call", "function_call", "message"])),
            "call_id": draw(IDS),
            "name": draw(NAMES),
            "arguments": arguments,
        }

    index = st.integers(0, 1)
    step = st.sampled_from(["added", "delta", "written", "done"])
    stream: list[Json] = []
    for kind in draw(st.lists(step, max_size=6)):
        at: Json = {"output_index": draw(index)}
        match kind:
            case "delta":
                stream.append({"type": "response.function_call_arguments.delta", **at, "delta": draw(SAID)})
            case "written":
                stream.append(
                    {"type": "response.function_call_arguments.done", **at, "arguments": draw(SAID)}
                )
            case _:
                item = call(draw(SAID))
                stream.append({"type": f"response.output_item.{kind}", **at, "item": item})
    output = [call(draw(SAID)) for _ in range(draw(st.integers(0, 2)))]
    return [*stream, {"type": "response.completed", "response": {"status": "completed", "output": output}}]


Run = tuple[str, str]


def run_by_clients(stream: list[Json]) -> set[Run]:
    """What clients of every habit could run: by items done, by the final response, by adding up deltas."""
    done = [event["item"] for event in stream if event["type"] == "response.output_item.done"]
    added: dict[int, Json] = {}
    for event in stream:
        if event["type"] == "response.output_item.added":
            added[event["output_index"]] = dict(event["item"])
        elif event["type"].endswith("delta") and event["output_index"] in added:
            added[event["output_index"]]["arguments"] += event["delta"]
        elif event["type"].endswith("arguments.done") and event["output_index"] in added:
            done.append({**added[event["output_index"]], "arguments": event["arguments"]})
    final = stream[-1]["response"]["output"]
    calls = [
        i
        for i in [*done, *(i for i in added.values() if i["arguments"]), *final]
        if i["type"] == "function_call"
    ]
    return {(i["name"], i["arguments"] or "{}") for i in calls if is_json(i["arguments"] or "{}")}


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def canonical(run: Run) -> Run:
    return run[0], json.dumps(json.loads(run[1] or "{}"))


@given(hostile())
def test_what_any_client_could_run_was_judged(stream: list[Json]) -> None:
    reader = Reader()
    assembly = Assembly()
    for data in stream:
        for event in reader.read(read_one(frame(data))).events:
            assembly.add(event)
            if isinstance(event, Unreadable):
                return
    judged = {
        canonical((call.name, call.arguments)) for call in assembly.calls() if is_json(call.arguments or "{}")
    }
    assert {canonical(run) for run in run_by_clients(stream)} <= judged
