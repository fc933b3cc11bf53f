"""What is sent: the closed choices of a measurement, and the request bodies that belong to them.

No two requests are alike, so no cache can flatter. Bodies are built by joining bytes, as cheap as can be.
"""

from __future__ import annotations

import itertools
import json
import random
from enum import StrEnum
from typing import assert_never

import msgspec

from bench.dialects import SHAPES, Dialect
from bench.mock import DELTAS, TOOL_EVENTS

CALLS_PER_RUN = 20
LONG = (300, 1_000)
"""Deltas of the long streams."""
TRANSLATED = (
    (Dialect.MESSAGES, Dialect.CHAT),
    (Dialect.CHAT, Dialect.MESSAGES),
    (Dialect.RESPONSES, Dialect.CHAT),
)
"""Caller's and upstream's dialect of what is measured in translation."""


class Prompt(StrEnum):
    """`history`: about 50 messages that an agent resends with one new each call. `unique`: all are new."""

    SMALL = "1k"
    HISTORY = "100k-history"
    UNIQUE = "100k-unique"


class Reply(StrEnum):
    WHOLE = "whole"
    STREAM = "stream"
    TOOLS = "stream-tools"


class Workload(msgspec.Struct, frozen=True):
    """One cell of the matrix. `deltas` are those of a streamed text."""

    connections: int
    reply: Reply
    prompt: Prompt
    deltas: int = DELTAS
    caller: Dialect = Dialect.CHAT
    upstream: Dialect = Dialect.CHAT

    @property
    def name(self) -> str:
        reply = self.reply if self.deltas == DELTAS else f"{self.reply}-{self.deltas}"
        name = f"{self.connections} × {reply} × {self.prompt}"
        if self.translated:
            return f"{name}, {self.caller} → {self.upstream}"
        return name if self.caller is Dialect.CHAT else f"{name}, {self.caller}"

    @property
    def translated(self) -> bool:
        return self.caller is not self.upstream

    @property
    def long(self) -> bool:
        """Whether the deltas are what is measured, and not the call around them."""
        return self.reply is Reply.STREAM and self.deltas > DELTAS

    @property
    def model(self) -> str:
        """Each has its target in `proxy.yaml`."""
        if self.reply is Reply.TOOLS:
            return "mock-tools"
        length = "1" if self.deltas == DELTAS else str(self.deltas)
        return f"messages-{length}" if self.upstream is Dialect.MESSAGES else f"mock-{length}"

    @property
    def events(self) -> int:
        """`data:` events that one reply must have, `[DONE]` included; 0 for a whole one."""
        match self.reply:
            case Reply.WHOLE:
                return 0
            case Reply.STREAM:
                return self.deltas + SHAPES[self.caller].around
            case Reply.TOOLS:
                return TOOL_EVENTS
            case _:
                assert_never(self.reply)


_VOCABULARY = (
    "account address agent answer amount arrive balance before branch budget build cancel carrier "
    "change charge check client close code commit complete confirm contract create customer date delay "
    "deliver deploy describe detail discount document draft email error escalate estimate expect "
    "explain export failure field file finish follow function handle history import increase inspect "
    "invoice issue item label late line list locate manager measure message method missing module month "
    "notice number offer open order package parameter partner pass payment pending period person policy "
    "previous price problem process product promise quantity query question reason receive record "
    "reduce refund region release remove repeat reply report request require resolve result return "
    "review route sample schedule search second send server service settle ship signal similar single "
    "source standard start state status stock store subject summary support system table task team test "
    "ticket time total track transfer update user value vendor verify version wait warehouse week "
    "window work write "
)
_SMALL_CHARS = 780
_LONG_CHARS = 1_930
_OPENING_MESSAGES = 40
_UNIQUE_MESSAGES = 50
_TEXT_CHARS = 1 << 18

_SYSTEM = (
    b'{"role":"system","content":"You are a support agent. Look things up before you answer, name the order '
    b'you talk about, and never promise a refund."}'
)
_TOOLS = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "docs_search",
                "description": "Search the support handbook.",
                "parameters": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["query"],
                    "properties": {
                        "query": {"type": "string", "maxLength": 200},
                        "limit": {"type": "integer", "minimum": 1, "maximum": 20},
                    },
                },
            },
        }
    ],
    separators=(",", ":"),
).encode()


class MessageSource:
    """Messages of about 2 KB or less, each different from every other of this source and of other seeds."""

    def __init__(self, seed: int) -> None:
        words = random.Random(7).choices(_VOCABULARY.split(), k=_TEXT_CHARS // 5)
        self._text = " ".join(words).encode()
        self._seed = seed
        self._numbers = itertools.count(1)

    def _content(self, chars: int) -> bytes:
        n = next(self._numbers)
        at = (n * 7919 + self._seed * 104_729) % (len(self._text) - chars)
        return b"(%d.%d) %b" % (self._seed, n, self._text[at : at + chars])

    def user(self, chars: int) -> bytes:
        return b'{"role":"user","content":"%b"}' % self._content(chars)

    def assistant(self, chars: int) -> bytes:
        return b'{"role":"assistant","content":"%b"}' % self._content(chars)

    def tool_step(self, chars: int) -> bytes:
        """Two messages: a proposed call, and its result."""
        call_id = b"call_%d_%d" % (self._seed, next(self._numbers))
        function = b'{"name":"docs_search","arguments":"{\\"query\\":\\"late parcel\\"}"}'
        call = b'{"id":"%b","type":"function","function":%b}' % (call_id, function)
        result = b'{"role":"tool","tool_call_id":"%b","content":"%b"}' % (call_id, self._content(chars))
        return b'{"role":"assistant","content":null,"tool_calls":[%b]},%b' % (call, result)

    def history(self, messages: int) -> bytes:
        """`messages` messages of about 2 KB: of ten, three user turns, three answers and two tool steps."""
        parts: list[bytes] = []
        for _ in range(messages // 10):
            for _ in range(2):
                parts += [
                    self.user(_LONG_CHARS),
                    self.tool_step(2 * _LONG_CHARS),
                    self.assistant(_LONG_CHARS),
                ]
            parts += [self.user(_LONG_CHARS), self.assistant(_LONG_CHARS)]
        return b",".join(parts)


class Conversation:
    """What one connection sends: runs of 20 calls, each run with an id of its own."""

    def __init__(self, workload: Workload, source: MessageSource, seed: int, lane: int) -> None:
        self._prompt = workload.prompt
        self._source = source
        self._run_prefix = b"bench-%d-%d-" % (seed, lane)
        self._runs = 0
        self._left = lane % CALLS_PER_RUN
        self._history = self._opening()
        self._start = _envelope(workload)

    def _opening(self) -> bytes:
        return self._source.history(_OPENING_MESSAGES) if self._prompt is Prompt.HISTORY else b""

    def next(self) -> tuple[bytes, bytes]:
        """The run id and the body of the next request. Connections change runs at different calls."""
        if self._left == 0:
            self._runs += 1
            self._left = CALLS_PER_RUN
            self._history = self._opening()
        self._left -= 1
        body = self._start + self._messages() + b"]}"
        return self._run_prefix + b"%d" % self._runs, body

    def _messages(self) -> bytes:
        match self._prompt:
            case Prompt.SMALL:
                return self._source.user(_SMALL_CHARS)
            case Prompt.HISTORY:
                self._history += b"," + self._source.user(_LONG_CHARS)
                return self._history
            case Prompt.UNIQUE:
                return self._source.history(_UNIQUE_MESSAGES)
            case _:
                assert_never(self._prompt)


def _envelope(workload: Workload) -> bytes:
    """The body up to the first message that differs. Long prompts and tools are chat's alone."""
    model = workload.model.encode()
    stream = b"" if workload.reply is Reply.WHOLE else b'"stream":true,'
    match workload.caller:
        case Dialect.MESSAGES:
            return b'{"model":"%b","max_tokens":4096,%b"messages":[' % (model, stream)
        case Dialect.RESPONSES:
            return b'{"model":"%b",%b"input":[' % (model, stream)
        case Dialect.CHAT:
            pass
        case _:
            assert_never(workload.caller)
    tools = (
        b'"tools":%b,' % _TOOLS
        if workload.reply is Reply.TOOLS or workload.prompt is not Prompt.SMALL
        else b""
    )
    return b'{"model":"%b",%b%b"messages":[%b,' % (model, stream, tools, _SYSTEM)
