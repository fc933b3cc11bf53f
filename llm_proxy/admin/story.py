"""What each call of a run added: messages that came in for the first time, and what the agent received."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from llm_proxy.archive.content import fold
from llm_proxy.chat.reply import Reply
from llm_proxy.errors import ProxyError
from llm_proxy.records.view import CallView
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.request import MessageFacts

_DIGEST = 64


class NewMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message of a request that no earlier call of the run held.

    `role` is the dialect's own word, or `unreadable` for a body or message that can't be parsed. A tool's
    result names its call, and the tool where a reply of this run proposed it.
    """

    role: str
    text: str
    tool: str = ""
    tool_call_id: str = ""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One call, with what was new in it."""

    call: CallView
    new: tuple[NewMessage, ...] = ()
    received: Reply | None = None
    """What the agent received, where that is not what the model emitted."""


class Story:
    """Told call by call, in the order in which the calls of one run began."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()
        self._tools: dict[str, str] = {}
        self._said: set[bytes] = set()

    def tell(self, call: CallView) -> Step:
        dialect = DIALECTS[call.dialect]
        new = self._new(dialect, call.request)
        received = received_reply(call)
        self._remember(call.reply, received)
        self._tools |= {decision.tool_call_id: decision.tool for decision in call.decisions}
        return Step(call=call, new=new, received=received)

    def _new(self, dialect: Dialect, body: bytes | None) -> tuple[NewMessage, ...]:
        if not body:
            return ()
        try:
            messages = dialect.parse(body).messages
        except ProxyError:
            return (NewMessage(role="unreadable", text=body.decode("utf-8", "replace")),)
        marks = list(map(_mark, messages))
        pairs = zip(messages, marks, strict=True)
        new = [self._read(dialect, raw) for raw, mark in pairs if mark not in self._seen]
        self._seen.update(marks)
        return tuple(message for read in new for message in read)

    def _read(self, dialect: Dialect, raw: bytes) -> list[NewMessage]:
        """Nothing where the message only repeats what the agent received from this run."""
        try:
            facts = dialect.message_facts(raw)
        except ProxyError:
            return [NewMessage(role="unreadable", text=raw.decode("utf-8", "replace"))]
        if facts.role == "assistant" and self._repeats(facts):
            return []
        told = [
            NewMessage(
                role="tool", text=result.text, tool=self._tools.get(result.id, ""), tool_call_id=result.id
            )
            for result in facts.results
        ]
        media = [f"[{item.kind}]" for item in facts.images]
        texts = [facts.user_text] if told and facts.user_text else [] if told else facts.texts
        if texts or media or not told:
            told.append(NewMessage(role=facts.role, text="\n".join((*texts, *media))))
        return told

    def _repeats(self, facts: MessageFacts) -> bool:
        if facts.proposed:
            return all(call.id in self._tools for call in facts.proposed)
        return any(_mark(text.strip()) in self._said for text in facts.texts)

    def _remember(self, *replies: Reply | None) -> None:
        for reply in replies:
            for choice in reply.choices if reply else ():
                said = (choice.text.strip(), choice.refusal.strip())
                self._said.update(_mark(text) for text in said if text)
                self._tools |= {call.id: call.name for call in choice.calls if call.id}


def _mark(text: bytes | str) -> bytes:
    """Stands for a text, so that a long run's need not all be in memory."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return raw if len(raw) < _DIGEST else blake2b(raw, digest_size=_DIGEST).digest()


def received_reply(call: CallView) -> Reply | None:
    """What the agent received, in typed parts; None where it says what the model emitted, or is not kept.

    An agent that received nothing of the reply received one without choices. A usage chunk that was kept back
    is no difference.
    """
    if call.released is None or call.reply is None:
        return None
    if not call.released:
        return Reply() if call.reply.choices else None
    received = fold(DIALECTS[call.dialect], call.released, stream=call.stream)
    return None if _meaning(received) == _meaning(call.reply) else received


def _meaning(reply: Reply) -> list[tuple[str, list[tuple[str, str]]]]:
    """What every dialect can say of a reply: its text and its calls, arguments without their spacing."""
    return [
        (choice.text + choice.refusal, [(call.name, _compact(call.arguments)) for call in choice.calls])
        for choice in reply.choices
    ]


def _compact(arguments: str) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments)).decode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return arguments
