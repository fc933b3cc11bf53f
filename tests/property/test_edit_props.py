"""Whichever calls of a reply are denied, they leave no trace and the others stay whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from llm_proxy.chat.events import Frame
from llm_proxy.chat.reply import Assembly, Reply
from llm_proxy.wire.openai_chat.edit import edit_body, edit_frames
from llm_proxy.wire.openai_chat.reply import read_body, read_frame
from llm_proxy.wire.sse import read_one, render


@dataclass(frozen=True)
class Call:
    choice: int
    index: int
    secret: str
    """Stands in the id, the name and the arguments, and nowhere else."""
    arguments: str

    @property
    def key(self) -> tuple[int, int]:
        return self.choice, self.index

    def whole(self, *, custom: bool) -> dict[str, object]:
        named = {"name": f"tool_{self.secret}", ("input" if custom else "arguments"): self.arguments}
        return {
            "id": f"id_{self.secret}",
            "type": "x",
            ("custom" if custom else "function"): named,
            "vendor": [1],
        }


@dataclass(frozen=True)
class Case:
    calls: list[Call]
    denied: dict[tuple[int, int], str]
    choices: int
    custom: bool

    def expected(self) -> list[tuple[int, str, str, str]]:
        """Allowed calls by choice in order: choice, id, name, arguments."""
        return [
            (c.choice, f"id_{c.secret}", f"tool_{c.secret}", c.arguments)
            for c in self.calls
            if c.key not in self.denied
        ]

    def holds(self, choice: int) -> bool:
        return any(c.choice == choice and c.key not in self.denied for c in self.calls)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    choices = draw(st.integers(1, 3))
    calls = [
        Call(choice, index, secret := f"s3cr3t{choice}x{index}y", draw(arguments(secret)))
        for choice in range(choices)
        for index in range(draw(st.integers(0, 3)))
    ]
    denied = {c.key: f"note {c.choice}/{c.index}" for c in calls if draw(st.booleans())}
    return Case(calls, denied, choices, draw(st.booleans()))


def arguments(secret: str) -> st.SearchStrategy[str]:
    odd = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    return odd.map(lambda text: json.dumps({secret: text + '"tool_calls":[{'}, ensure_ascii=False))


def fold(frames: list[Frame]) -> Reply:
    assembly = Assembly()
    for frame in frames:
        for event in frame.events:
            assembly.add(event)
    assert assembly.unreadable == ""
    return assembly.reply()


def check(case: Case, before: bytes, after: bytes, reply: Reply) -> None:
    for call in case.calls:
        assert call.secret.encode() in before
        assert (call.secret.encode() in after) == (call.key not in case.denied)
    got = [(c.choice, c.id, c.name, c.arguments) for choice in reply.choices for c in choice.calls]
    assert got == case.expected()
    for choice in reply.choices:
        assert [c.index for c in choice.calls] == list(range(len(choice.calls)))
        for (number, _), note in case.denied.items():
            assert (note in choice.text) == (number == choice.index)
        had = any(c.choice == choice.index for c in case.calls)
        assert choice.finish == ("stop" if had and not case.holds(choice.index) else "tool_call")


@given(cases(), st.sampled_from([None, "said", [{"type": "text", "text": "said"}]]))
def test_bodies(case: Case, content: object) -> None:
    choices: list[dict[str, object]] = [
        {
            "index": choice,
            "message": {
                "role": "assistant",
                "content": content,
                "tool_calls": [c.whole(custom=case.custom) for c in case.calls if c.choice == choice],
            },
            "logprobs": {"content": [{"token": c.secret} for c in case.calls if c.choice == choice]},
            "finish_reason": "tool_calls",
        }
        for choice in range(case.choices)
    ]
    hit = {choice for choice, _ in case.denied}
    for choice in choices:
        if choice["index"] not in hit:
            choice["logprobs"] = None
    body = json.dumps({"id": "x", "model": "m", "choices": choices}, ensure_ascii=False).encode()
    after = edit_body(body, case.denied)
    assert (after is body) == (not case.denied)
    check(case, body, after, fold([read_body(after)]))


@given(cases(), st.data())
def test_streams(case: Case, data: st.DataObject) -> None:
    frames = data.draw(streams(case))
    before = b"".join(frame.raw for frame in frames)
    out = edit_frames(frames, case.denied)
    if not case.denied:
        assert out == [frame.raw for frame in frames]
    check(case, before, b"".join(out), fold([read_frame(read_one(raw)) for raw in out]))


@st.composite
def streams(draw: st.DrawFn, case: Case) -> list[Frame]:
    """The case's calls as deltas: interleaved, cut anywhere, several to a chunk."""
    queues = [pieces(draw, call, custom=case.custom) for call in case.calls]
    ordered: list[tuple[int, dict[str, object]]] = []
    started = 0
    while any(queues):
        # A server starts a choice's calls in order; their deltas may come in any order after that.
        live = [at for at, queue in enumerate(queues) if queue and at <= started]
        at = draw(st.sampled_from(live)) if live else next(at for at, queue in enumerate(queues) if queue)
        started = max(started, at + 1)
        ordered.append((case.calls[at].choice, queues[at].pop(0)))
    frames: list[Frame] = []
    while ordered:
        take, ordered = ordered[: (size := draw(st.integers(1, 3)))], ordered[size:]
        by_choice: dict[int, list[dict[str, object]]] = {}
        for choice, delta in take:
            by_choice.setdefault(choice, []).append(delta)
        frames.append(frame([{"index": c, "delta": {"tool_calls": items}} for c, items in by_choice.items()]))
        if draw(st.booleans()):
            logprobs = {"content": [{"token": c.secret} for c in case.calls if c.key in case.denied]}
            hit = sorted({choice for choice, _ in case.denied})
            frames.append(frame([{"index": c, "delta": {}, "logprobs": logprobs} for c in hit]))
    ends: list[dict[str, object]] = [
        {"index": c, "delta": {}, "finish_reason": "tool_calls"} for c in range(case.choices)
    ]
    frames += [frame(ends)] if draw(st.booleans()) else [frame([end]) for end in ends]
    return frames


def pieces(draw: st.DrawFn, call: Call, *, custom: bool) -> list[dict[str, object]]:
    kind, field = ("custom", "input") if custom else ("function", "arguments")
    text = call.arguments
    at = draw(st.integers(0, len(text)))
    # Cuts stay out of the secret, so that looking for it in the bytes means something.
    secret = text.index(call.secret)
    at = secret if secret < at < secret + len(call.secret) else at
    head: dict[str, object] = {"index": call.index, "id": f"id_{call.secret}", "type": kind, "vendor": [1]}
    name = {"name": f"tool_{call.secret}"}
    first: list[dict[str, object]] = [{**head, kind: {**name, field: ""}}]
    if draw(st.booleans()):
        first: list[dict[str, object]] = [{**head, kind: {field: ""}}, {"index": call.index, kind: name}]
    return [*first, *({"index": call.index, kind: {field: piece}} for piece in (text[:at], text[at:]))]


def frame(choices: Sequence[Mapping[str, object]]) -> Frame:
    data = json.dumps({"id": "x", "object": "o", "model": "m", "choices": choices}, ensure_ascii=False)
    return read_frame(read_one(render(data.encode())))
