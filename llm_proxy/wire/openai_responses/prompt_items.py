"""OpenAI Responses, the items of an input as messages: who said, called, answered or thought what."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.events import GEMINI_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import CallPart, Message, Part, ResultPart, Role, TextPart, ThoughtPart
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.wire.faults import decoded, invalid, unsupported
from llm_proxy.wire.openai_responses import prompt_content as content
from llm_proxy.wire.openai_responses import prompt_schema as schema
from llm_proxy.wire.openai_responses.prompt_tools import Declared, declare
from llm_proxy.wire.seal import unwrap

_item = msgspec.json.Decoder(schema.Item).decode
_item_type = msgspec.json.Decoder(schema.ItemType).decode

_LEFT_OUT = frozenset(
    f"{tool}{part}"
    for tool in ("computer", "local_shell", "shell", "apply_patch")
    for part in ("_call", "_call_output")
) | {
    "code_interpreter_call",
    "file_search_call",
    "image_generation_call",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
    "program",
    "program_output",
    "tool_search_call",
    "tool_search_output",
    "web_search_call",
}
"""What tools of the vendor's own left in the history. The tools are not declared elsewhere either."""

_STORED = {
    "item_reference": "stands for an item in its vendor's store: send the item itself",
    "compaction": "holds a conversation that only its vendor can read: send the conversation itself",
    "compaction_trigger": "asks for a compaction that only its vendor makes: leave it out",
}
_WORDS = (ReasoningKind.RAW, ReasoningKind.SUMMARY, ReasoningKind.INLINE_TAG)


class Conversation:
    """Items folded into messages: what an assistant did in a row is one message, results in a row another."""

    __slots__ = ("_assistant", "_results", "_signatures", "declared", "dropped", "messages", "system")

    def __init__(self, declared: Declared) -> None:
        self.declared = declared
        self.system: list[TextPart] = []
        """What the system and developer messages at the start say."""
        self.messages: list[Message] = []
        self.dropped: list[str] = []
        self._assistant: list[Part] = []
        self._results: list[Part] = []
        self._signatures: dict[str, str] = {}
        """Signatures of calls that are still to come, by call id."""

    def add(self, raw: msgspec.Raw, where: str) -> None:
        """Take the next item. Raises `ProxyError` for one that can't be read or carried over."""
        kind = decoded(_item_type, raw, where).type or "message"
        if kind in _STORED:
            raise unsupported(f"{where} ({kind}) {_STORED[kind]}", where)
        if kind in _LEFT_OUT:
            self.dropped.append(f"{where} ({kind})")
            return
        item = decoded(_item, raw, where)
        match kind:
            case "message":
                self._add_message(item, where)
            case "reasoning":
                self._think(item)
            case "function_call" | "custom_tool_call":
                self._call(item, where, custom=kind == "custom_tool_call")
            case "function_call_output" | "custom_tool_call_output":
                self._answer(item, where, custom=kind == "custom_tool_call_output")
            case "additional_tools":
                declare(item.tools or (), f"{where}.tools", self.declared)
            case _:
                raise unsupported(
                    f"{where} is of type {kind!r}, which can't be carried over to this model's vendor: leave "
                    "it out, or choose a model that speaks the Responses API",
                    where,
                )

    def close(self) -> tuple[Message, ...]:
        self._end_turn()
        return tuple(self.messages)

    def _add_message(self, item: schema.Item, where: str) -> None:
        self._hint(item)
        match item.role:
            case "assistant":
                self._does(*content.read_spoken(item.content, where))
            case "system" | "developer":
                self._instruct(content.read_texts(item.content, where))
            case "user":
                self._end_turn()
                said = content.read_said(item.content, where)
                self.messages.append(Message(role=Role.USER, parts=said))
            case None:
                raise invalid(f"{where}.role is missing: send user, assistant, system or developer", where)
            case _:
                raise invalid(
                    f"{where}.role is {item.role!r}: send user, assistant, system or developer", where
                )

    def _hint(self, item: schema.Item) -> None:
        if item.phase and "input.phase" not in self.dropped:
            self.dropped.append("input.phase")
        if "input.annotations" not in self.dropped and content.has_annotations(item.content):
            self.dropped.append("input.annotations")

    def _instruct(self, texts: tuple[TextPart, ...]) -> None:
        self._end_turn()
        if self.messages:
            self.messages.append(Message(role=Role.SYSTEM, parts=texts))
        else:
            self.system += texts

    def _think(self, item: schema.Item) -> None:
        for thought in read_thoughts(item):
            if is_call_signature(thought):
                self._signatures[thought.id] = thought.signature
            else:
                self._does(ThoughtPart(thought=thought))

    def _call(self, item: schema.Item, where: str, *, custom: bool) -> None:
        if not item.call_id or not item.name:
            raise invalid(f"{where} lacks its call_id or name: send both", where)
        call = CallPart(
            id=item.call_id,
            name=self.declared.flat(item.name, item.namespace or ""),
            arguments=item.input or "" if custom else item.arguments or "{}",
            custom=custom,
            signature=self._signatures.pop(item.call_id, ""),
        )
        self._does(call)

    def _does(self, *parts: Part) -> None:
        if self._results:
            self._end_turn()
        self._assistant += parts

    def _answer(self, item: schema.Item, where: str, *, custom: bool) -> None:
        if not item.call_id:
            raise invalid(f"{where}.call_id is missing: name the call that this answers", where)
        if self._assistant:
            self._end_turn()
        shown = content.read_shown(item.output, where)
        self._results.append(ResultPart(call_id=item.call_id, parts=shown, custom=custom))

    def _end_turn(self) -> None:
        for role, parts in ((Role.ASSISTANT, self._assistant), (Role.USER, self._results)):
            if parts:
                self.messages.append(Message(role=role, parts=tuple(parts)))
                parts.clear()


def read_thoughts(item: schema.Item) -> tuple[ReasoningPart, ...]:
    """A reasoning item's parts: summaries, words, and last what seals them; all share the item's id.

    A seal that another dialect's reply put into an envelope comes out as it was, with the id and the format
    that it had. Where the envelope holds the words too, the item's own copy of them is left out.
    """
    sealed = item.encrypted_content or ""
    carried = unwrap(sealed)
    if carried is not None and carried.kind in _WORDS and carried.text:
        return (carried,)
    if carried is not None:
        id_, format_, last = carried.id, carried.format, (carried,)
    else:
        id_, format_ = item.id or "", RESPONSES_FORMAT if sealed else ""
        seal = ReasoningPart(kind=ReasoningKind.ENCRYPTED, text=sealed, id=id_, format=format_)
        last = (seal,) if sealed else ()
    words = item.content if isinstance(item.content, list) else ()
    return (
        *_worded(ReasoningKind.SUMMARY, item.summary or (), id_, format_),
        *_worded(ReasoningKind.RAW, words, id_, format_),
        *last,
    )


def is_call_signature(thought: ReasoningPart) -> bool:
    """Whether this is a call's thought signature (Gemini's), for which a function call has no place."""
    sealed = thought.kind is ReasoningKind.ENCRYPTED and not thought.text
    return sealed and thought.format == GEMINI_FORMAT and bool(thought.id and thought.signature)


def call_signature(call_id: str, signature: str) -> ReasoningPart:
    """A call's thought signature, to be sent before it as a reasoning item of its own."""
    return ReasoningPart(kind=ReasoningKind.ENCRYPTED, signature=signature, id=call_id, format=GEMINI_FORMAT)


def _worded(
    kind: ReasoningKind, parts: Sequence[schema.Content], id_: str, format_: str
) -> list[ReasoningPart]:
    return [ReasoningPart(kind=kind, text=part.text, id=id_, format=format_) for part in parts if part.text]
