"""The texts of a recorded call that can be searched: what was new in its request, and its reply."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import msgspec

from llm_proxy.chat.reply import OPAQUE, ChoiceReply
from llm_proxy.errors import ProxyError
from llm_proxy.records.blobs import epoch_of
from llm_proxy.records.columns import column
from llm_proxy.records.view import CallView, Decision
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.request import MessageFacts

MOST_CHARS = 262_144
"""Characters of one text that are indexed."""
ASKED_A_PERSON = frozenset(
    {"approved", "approval-denied", "approval-expired", "approval-pending", "no-approver"}
)
"""Rules of verdicts that came of asking a person."""
_SHARED = frozenset({"system", "developer"})
"""What many runs of an agent begin with is indexed once a day for all of them."""
_DEEPEST = 64
FACET = "\ue000"
"""A letter of nobody's, which no text keeps as part of a word."""
_encode = msgspec.json.Encoder().encode


class TextKind(StrEnum):
    PROMPT = "prompt"
    """What came in: instructions, what a person wrote, what the agent claims was said before."""
    TOOL_RESULT = "tool_result"
    REPLY = "reply"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"


class Document(NamedTuple):
    """One text of a call. `key` is the same for the same text wherever it comes in again."""

    key: bytes
    call_id: str
    agent_id: str
    run_id: str
    at_us: int
    epoch: int
    """The day on which the call began."""
    kind: TextKind
    tool: str
    text: str
    facets: tuple[str, ...]
    """Words that no text can hold: by them filters are part of the search."""


class Seen(Protocol):
    """What was indexed before, by keys."""

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of `keys` that are there, or were passed over."""
        ...

    def passed(self, key: bytes) -> None:
        """A message that only repeats what was indexed: it need not be looked at again."""
        ...


class NothingSeen:
    """Every text of a call is told."""

    def known(self, keys: Sequence[bytes]) -> set[bytes]:
        return set()

    def passed(self, key: bytes) -> None:
        pass


@lru_cache(maxsize=4_096)
def facet(name: str, value: str) -> str:
    """The word that stands for `value` of the filter `name`."""
    told = hashlib.blake2b(f"{name}\0{value}".encode("utf-8", "surrogatepass"), digest_size=7)
    return f"{FACET}{told.hexdigest()}"


def documents(call: CallView, seen: Seen) -> list[Document]:
    """The texts of a call that ended; of its messages those that weren't `seen`."""
    return [*_prompts(call, seen), *_said(call, seen)]


def texts_of(call: CallView) -> dict[bytes, Document]:
    """All texts of a call by every key under which they may be indexed."""
    found = documents(call, NothingSeen())
    return {_again(one.key, call): one for one in found} | {one.key: one for one in found}


def _prompts(call: CallView, seen: Seen) -> Iterator[Document]:
    if not call.request:
        return
    dialect = DIALECTS[call.dialect]
    try:
        messages = () if dialect.raw else dialect.parse(call.request).messages
    except ProxyError:
        messages = ()
        yield _of(call, _key(call, b"body", call.request), TextKind.PROMPT, _plain(call.request))
    if dialect.raw:
        yield _of(call, _key(call, b"body", call.request), TextKind.PROMPT, _plain(call.request))
    keys = {_key(call, b"message", raw): raw for raw in messages}
    shared = {_key(call, b"shared", raw, run=False): key for key, raw in keys.items()}
    there = seen.known([*keys, *shared])
    for own, key in shared.items():
        if key in there or own in there:
            continue
        try:
            facts = dialect.message_facts(keys[key])
        except ProxyError:
            facts = MessageFacts(role="unreadable", texts=(_plain(keys[key]),))
        yield from _of_message(call, facts, own if facts.role in _SHARED else key, seen)


def _of_message(call: CallView, facts: MessageFacts, key: bytes, seen: Seen) -> Iterator[Document]:
    """Nothing where the message only repeats what the agent received in this run."""
    if facts.role == "assistant" and _repeats(call, facts, seen):
        seen.passed(key)
        return
    tools = {decision.tool_call_id: decision.tool for decision in call.decisions}
    tools |= {result.tool_call_id: result.tool for result in call.results}
    for number, result in enumerate(facts.results):
        own = key if number == 0 else _key(call, b"result %d" % number, key)
        yield _of(call, own, TextKind.TOOL_RESULT, _flat(result.text), tools.get(result.id, ""))
    texts = (facts.user_text,) if facts.results else facts.texts
    text = "\n".join(text for text in texts if text)
    if text:
        own = _key(call, b"beside", key) if facts.results else key
        yield _of(call, own, TextKind.PROMPT, text)


def _repeats(call: CallView, facts: MessageFacts, seen: Seen) -> bool:
    if facts.proposed:
        keys = [_call_key(call, one.id, one.name, one.arguments) for one in facts.proposed]
        return len(seen.known(keys)) == len(set(keys))
    return bool(seen.known([_text_key(call, text) for text in facts.texts]))


def _said(call: CallView, seen: Seen) -> Iterator[Document]:
    proposed = 0
    for choice in call.reply.choices if call.reply else ():
        thoughts = [part.text for part in choice.reasoning if part.kind not in OPAQUE and part.text]
        if thoughts:
            told = "\n\n".join(thoughts)
            yield _of(call, _key(call, b"thought", f"{call.id} {choice.index}"), TextKind.REASONING, told)
        text = _words_of(choice)
        if text:
            key = _first(seen, _text_key(call, text), call)
            yield _of(call, key, TextKind.REPLY, text)
        for one in choice.calls:
            proposed += 1
            key = _first(seen, _call_key(call, one.id, one.name, one.arguments), call)
            judged = [d for d in call.decisions if (d.choice, d.index) == (one.choice, one.index)]
            yield _of_call(call, key, one.name, one.arguments, judged)
    if not proposed:
        for decision in call.decisions:
            key = _call_key(call, decision.tool_call_id, decision.tool, decision.arguments)
            key = _first(seen, key, call)
            yield _of_call(call, key, decision.tool, decision.arguments, [decision])


def _first(seen: Seen, key: bytes, call: CallView) -> bytes:
    """`key`, by which the agent's repeating it is known; one of the call's own where it was said before."""
    return _again(key, call) if seen.known([key]) else key


def _again(key: bytes, call: CallView) -> bytes:
    return _key(call, b"again", key + call.id.encode())


def _words_of(choice: ChoiceReply) -> str:
    return "\n".join(text.strip() for text in (choice.text, choice.refusal) if text.strip())


def _of_call(call: CallView, key: bytes, tool: str, arguments: str, judged: Sequence[Decision]) -> Document:
    text = f"{tool} {_flat(arguments)}"
    facets = (*_always(call, TextKind.TOOL_CALL), facet("tool", tool), *_judged(judged))
    return _document(call, key, TextKind.TOOL_CALL, tool, text, facets)


def _of(call: CallView, key: bytes, kind: TextKind, text: str, tool: str = "") -> Document:
    """A text that is found by what the whole call did."""
    tools = {*(decision.tool for decision in call.decisions), *(use.tool for use in call.provider_tools)}
    tools |= {result.tool for result in call.results}
    tools |= {one.name for choice in (call.reply.choices if call.reply else ()) for one in choice.calls}
    if kind is TextKind.TOOL_RESULT:
        tools = {tool}
    told = tuple(facet("tool", name) for name in sorted(tools) if name)
    return _document(call, key, kind, tool, text, (*_always(call, kind), *told, *_judged(call.decisions)))


def _document(
    call: CallView, key: bytes, kind: TextKind, tool: str, text: str, facets: tuple[str, ...]
) -> Document:
    return Document(
        key,
        call.id,
        call.agent_id,
        call.run_id,
        call.started_us,
        epoch_of(call.started_us),
        kind,
        column(tool),
        text[:MOST_CHARS],
        facets,
    )


def _always(call: CallView, kind: TextKind) -> tuple[str, ...]:
    told = (
        ("kind", kind.value),
        ("agent", call.agent_id),
        ("run", call.run_id),
        ("user", call.user_id),
        ("model", call.model),
    )
    return tuple(facet(name, value) for name, value in told if value)


def _judged(decisions: Iterable[Decision]) -> tuple[str, ...]:
    """Facets of verdicts: what was said, by which rules, and whether a person was asked."""
    told: dict[tuple[str, str], None] = {}
    for decision in decisions:
        told["decision", decision.decision] = None
        if decision.rule in ASKED_A_PERSON:
            told["decision", "ask"] = None
        for rule in (decision.rule, *decision.hits):
            if rule:
                told["rule", rule] = None
    return tuple(facet(name, value) for name, value in told)


def _call_key(call: CallView, id_: str, tool: str, arguments: str) -> bytes:
    return _key(call, b"call", id_ if id_ and id_ != tool else f"{tool}\0{arguments}")


def _text_key(call: CallView, text: str) -> bytes:
    return _key(call, b"said", text.strip())


def _key(call: CallView, what: bytes, content: bytes | str, *, run: bool = True) -> bytes:
    """By the day, so that what is sent again on another is found for as long as that day is kept."""
    digest = hashlib.blake2b(digest_size=16)
    of = (call.agent_id, call.run_id if run else "", str(epoch_of(call.started_us)))
    for part in of:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    digest.update(what + b"\0")
    digest.update(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return digest.digest()


def _plain(body: bytes) -> str:
    return _flat(body.decode("utf-8", "replace"))


def _flat(text: str) -> str:
    """JSON as its names and values, without what escapes them; other text as it is."""
    if text[:1] not in ("{", "["):
        return text
    try:
        return "\n".join(_leaves(_read(text.encode("utf-8", "replace")), "", _DEEPEST))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return text


_Tree = dict[str, Any] | list[Any] | str | float | bool | None
_read = msgspec.json.Decoder(_Tree).decode


def _leaves(value: _Tree, name: str, deeper: int) -> Iterator[str]:
    match value:
        case dict() if deeper:
            for key, inner in value.items():
                yield from _leaves(inner, key, deeper - 1)
        case list() if deeper:
            for inner in value:
                yield from _leaves(inner, name, deeper - 1)
        case _:
            told = value if isinstance(value, str) else _encode(value).decode()
            yield f"{name}: {told}" if name else told
