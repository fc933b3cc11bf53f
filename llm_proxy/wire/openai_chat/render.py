"""OpenAI chat completions, a stream written anew from events.

Text and reasoning become a chunk at once, from bytes made ahead. Reasoning goes out as `reasoning_content`,
and beside it as `reasoning_details` where its vendor wants it back: there the seal stands with its words.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.events import (
    CallDelta,
    Event,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    Started,
    Text,
    Usage,
    UsageSeen,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_chat.details import OPAQUE, entry, sealed
from llm_proxy.wire.openai_chat.reply_parts import (
    Caller,
    call_id,
    caller_of,
    completion_id,
    finish_reason,
    freeform_input,
    usage_of,
)

_ROLE = b'"role":"assistant",'
_END = b'},"finish_reason":null}]}\n\n'

_encode = msgspec.json.Encoder().encode


class _Call:
    """A call of the reply under its index in the choice, which counts from 0."""

    __slots__ = ("custom", "held", "id", "index", "name", "signature", "started")

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.custom = False
        self.started = False
        self.held: list[str] = []
        """The arguments of a freeform tool's call, which are unpacked once they are whole."""
        self.signature = ""
        """Still to be sent."""


class _Choice:
    __slots__ = ("calls", "finished", "refused", "spoken", "start", "text_start", "thoughts")

    def __init__(self, prefix: bytes, index: int) -> None:
        self.start = b'%b%d,"delta":{' % (prefix, index)
        self.text_start = self.start + b'"content":'
        self.spoken = False
        self.refused = False
        self.finished = False
        self.calls: dict[int, _Call] = {}
        self.thoughts: dict[tuple[int, ReasoningKind], list[str]] = {}
        """Words of parts that have shown no seal yet, to stand beside it if one comes."""


class ChatRenderer:
    """One streamed reply. Chunks are `chat.completion.chunk`s of the upstream's model name."""

    __slots__ = ("_about", "_caller", "_choices", "_prefix", "_usage")

    def __init__(self, about: About) -> None:
        self._about = about
        self._caller: Caller = caller_of(about.request)
        self._choices: dict[int, _Choice] = {}
        self._prefix = self._envelope(about.model)
        self._usage: Usage | None = None

    def render(self, events: Sequence[Event]) -> bytes:
        """The chunks for these events. Failures and tools that the provider ran are not told."""
        if len(events) == 1 and isinstance(event := events[0], Text):
            return self._text(event)
        return b"".join([self._render(event) for event in events])

    def close(self) -> bytes:
        """What ends the stream: a finish for every choice, usage where it was asked for and reported."""
        if not self._choices:
            self._choice(0)
        out = [
            self._finish(index, choice, "stop")
            for index, choice in sorted(self._choices.items())
            if not choice.finished
        ]
        if self._usage and self._about.include_usage:
            head = self._prefix.removesuffix(b'{"index":')
            out.append(head + b'],"usage":' + _encode(usage_of(self._usage)) + b"}\n\n")
        out.append(b"data: [DONE]\n\n")
        return b"".join(out)

    def _render(self, event: Event) -> bytes:
        match event:
            case Text():
                return self._text(event)
            case Reasoning():
                return self._reasoning(self._choice(event.choice), event)
            case CallDelta():
                return self._call(self._choice(event.choice), event)
            case Refusal(choice, text):
                of = self._choice(choice)
                of.refused = True
                return self._delta(of, b'"refusal":' + _encode(text))
            case Finished(choice, reason):
                return self._finish(choice, self._choice(choice), reason)
            case UsageSeen(usage):
                self._usage = usage
            case Started(_, model) if model and not self._choices:
                self._prefix = self._envelope(model)
            case _:
                pass
        return b""

    def _envelope(self, model: str) -> bytes:
        """Everything of a chunk before its choice's index."""
        id_ = completion_id(self._about.call_id)
        head = _encode({"id": id_, "object": "chat.completion.chunk", "created": self._about.created})
        return b'data: %b,"model":%b,"choices":[{"index":' % (head[:-1], _encode(model))

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(self._prefix, index)
        return choice

    def _delta(self, choice: _Choice, members: bytes) -> bytes:
        if choice.spoken:
            return choice.start + members + _END
        choice.spoken = True
        return choice.start + _ROLE + members + _END

    def _text(self, event: Text) -> bytes:
        choice = self._choices.get(event.choice)
        if choice is not None and choice.spoken:
            return choice.text_start + _encode(event.text) + _END
        return self._delta(self._choice(event.choice), b'"content":' + _encode(event.text))

    def _reasoning(self, choice: _Choice, event: Reasoning) -> bytes:
        opaque = event.kind in OPAQUE
        members: list[bytes] = []
        if event.text and not opaque:
            members.append(b'"reasoning_content":' + _encode(event.text))
        part = ReasoningPart(
            kind=event.kind, text=event.text, signature=event.signature, id=event.id, format=event.format
        )
        if event.format or sealed(part):
            earlier = "" if opaque else "".join(choice.thoughts.pop((event.part, event.kind), ()))
            if earlier:
                part = msgspec.structs.replace(part, text=earlier + part.text)
            members.append(b'"reasoning_details":' + _encode([entry(part, event.part)]))
        elif event.text:
            choice.thoughts.setdefault((event.part, event.kind), []).append(event.text)
        return self._delta(choice, b",".join(members)) if members else b""

    def _call(self, choice: _Choice, delta: CallDelta) -> bytes:
        call = choice.calls.get(delta.index)
        if call is None:
            call = choice.calls[delta.index] = _Call(len(choice.calls))
        call.id = call.id or delta.id
        call.custom = call.custom or delta.custom
        call.signature = delta.signature or call.signature
        call.name += delta.name
        if not call.started and (self._freeform(call) or not call.name or _waits(choice, call)):
            call.held.append(delta.arguments)
            return b""
        arguments = "".join([*call.held, delta.arguments])
        call.held.clear()
        return self._call_chunk(choice, call, delta.name, arguments)

    def _freeform(self, call: _Call) -> bool:
        return call.custom or call.name in self._caller.custom_tools

    def _call_chunk(self, choice: _Choice, call: _Call, name: str, arguments: str) -> bytes:
        """A piece of a function's call; the first one says which call it is."""
        function: dict[str, str] = {"arguments": arguments}
        if not call.started:
            function = {"name": call.name, "arguments": arguments}
        elif name:
            function = {"name": name, "arguments": arguments}
        if self._caller.legacy:
            call.started = True
            first = call.index == 0
            return self._delta(choice, b'"function_call":' + _encode(function)) if first else b""
        out: dict[str, object] = {"index": call.index}
        if not call.started:
            out |= {"id": call.id or call_id(self._about.call_id, call.index), "type": "function"}
        out["function"] = function
        if call.signature:
            out["extra_content"] = {"google": {"thought_signature": call.signature}}
            call.signature = ""
        call.started = True
        return self._delta(choice, b'"tool_calls":' + _encode([out]))

    def _held_call(self, choice: _Choice, call: _Call) -> bytes:
        """A call that was kept until it is whole: a freeform tool's, or one that never got a name."""
        arguments = "".join(call.held)
        if not self._freeform(call):
            return self._call_chunk(choice, call, call.name, arguments)
        call.started = True
        out: dict[str, object] = {
            "index": call.index,
            "id": call.id or call_id(self._about.call_id, call.index),
            **freeform_input(call.name, arguments, self._caller, custom=call.custom),
        }
        return self._delta(choice, b'"tool_calls":' + _encode([out]))

    def _finish(self, index: int, choice: _Choice, reason: str) -> bytes:
        if choice.finished:
            return b""
        choice.finished = True
        out = [self._held_call(choice, call) for call in choice.calls.values() if not call.started]
        if not choice.spoken:
            out.append(self._delta(choice, b'"content":""'))
        word = finish_reason(reason, self._caller, calling=bool(choice.calls), refused=choice.refused)
        out.append(b'%b%d,"delta":{},"finish_reason":"%b"}]}\n\n' % (self._prefix, index, word.encode()))
        return b"".join(out)


def _waits(choice: _Choice, call: _Call) -> bool:
    """Whether an earlier call is still kept: clients add calls up in the order of their indexes."""
    return any(not earlier.started for earlier in choice.calls.values() if earlier.index < call.index)
