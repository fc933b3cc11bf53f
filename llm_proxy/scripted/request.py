"""What a script looks at in a request, in whatever dialect it came."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from llm_proxy.scripted.script import JsonObject


class Dialect(StrEnum):
    """By the path that it is served at, without `/v1/`."""

    CHAT = "chat/completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "messages/count_tokens"


@dataclass(slots=True)
class RequestError(ValueError):
    """A request that the vendor refuses, and how its error says so."""

    message: str
    code: str = "invalid_request"
    param: str | None = None
    status: int = 400

    def __post_init__(self) -> None:
        ValueError.__init__(self, self.message)


class Line(msgspec.Struct, frozen=True):
    """One message. `calls` are tools' names by call id, `answers` the calls that it gives results of."""

    role: str
    text: str = ""
    calls: dict[str, str] = {}
    answers: tuple[str, ...] = ()


class Talk(msgspec.Struct, frozen=True):
    """A conversation, as far as `when:` may ask about it."""

    turn: int = 0
    """The number of assistant messages."""
    last: dict[str, str] = {}
    """Text of the last message of each role."""
    calls: dict[str, str] = {}
    answered: frozenset[str] = frozenset()
    has_tool_result: bool = False

    @property
    def tools_answered(self) -> frozenset[str]:
        """Names of the tools whose calls stand answered."""
        return frozenset(self.calls[id_] for id_ in self.answered if id_ in self.calls)

    def then(self, later: Talk) -> Talk:
        """This conversation, and how it went on."""
        return Talk(
            turn=self.turn + later.turn,
            last=self.last | later.last,
            calls=self.calls | later.calls,
            answered=self.answered | later.answered,
            has_tool_result=self.has_tool_result or later.has_tool_result,
        )


def talk_of(lines: Iterable[Line]) -> Talk:
    """What a script may ask of these messages."""
    turn, last, calls, answered, results = 0, dict[str, str](), dict[str, str](), set[str](), False
    for line in lines:
        turn += line.role == "assistant"
        results = results or line.role == "tool"
        last[line.role] = line.text
        calls |= line.calls
        answered.update(line.answers)
    return Talk(turn, last, calls, frozenset(answered), results)


class EmbeddingAsk(msgspec.Struct, frozen=True):
    """What is to be embedded, and how the vectors are to look."""

    texts: tuple[str, ...]
    dimensions: int
    as_base64: bool


class ScriptedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What `when:` may ask about, and what the reply is made from."""

    model: str
    dialect: Dialect = Dialect.CHAT
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    talk: Talk = Talk()
    headers: dict[str, str] = {}
    """By lower-case name."""
    input_bytes: int = 0
    """Size of the messages, system prompt and tools."""
    digest: bytes = b""
    custom_tools: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    thoughtless: int | None = None
    """Chat: the first assistant message with calls and without `reasoning_content`."""
    thinking: str = ""
    """Messages: `enabled`, `adaptive`, or empty where no thinking was asked for."""
    thinking_omitted: bool = False
    unsigned: str = ""
    """Messages: the place of the first thinking block whose signature is empty."""
    encrypted: bool = False
    """Responses: `include` asks for `reasoning.encrypted_content`."""
    store: bool = True
    background: bool = False
    previous: str = ""
    """Responses: `previous_response_id`."""
    known_items: tuple[str, ...] = ()
    """Responses: ids of items that the vendor is taken to have kept."""
    echo: JsonObject = {}
    """Responses: the request's settings, which the reply repeats."""
    embedding: EmbeddingAsk | None = None
