"""Folding events into a reply: what the model said, in typed parts."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from llm_proxy.chat.events import (
    CallDelta,
    Ended,
    Event,
    Failed,
    Finished,
    Reasoning,
    ReasoningKind,
    Refusal,
    ServerTool,
    Started,
    Text,
    Unreadable,
    Usage,
    UsageSeen,
)

OPAQUE = frozenset({ReasoningKind.ENCRYPTED, ReasoningKind.REDACTED})
"""Kinds whose text only the vendor can read."""


_NO_LIMIT = 1 << 62


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool call that a model proposed. `arguments` is the raw JSON text, unparsed and unjudged."""

    choice: int
    index: int
    id: str
    name: str
    arguments: str
    custom: bool = False
    signature: str = ""


class ReasoningPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of the reasoning, in a reply or sent back in the history.

    `text` of kind encrypted or redacted is opaque. `signature`, `id` and `format` as in `events.Reasoning`.
    """

    kind: ReasoningKind
    text: str = ""
    signature: str = ""
    id: str = ""
    format: str = ""


class ServerToolUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that the provider ran itself."""

    index: int
    name: str
    id: str = ""


class ChoiceReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    index: int
    text: str = ""
    refusal: str = ""
    reasoning: tuple[ReasoningPart, ...] = ()
    calls: tuple[ToolCall, ...] = ()
    server_tools: tuple[ServerToolUse, ...] = ()
    finish: str = ""
    """Empty while the choice has not ended, and for ever where the reply was cut."""


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole reply. `usage` is None where the upstream reported none."""

    id: str = ""
    model: str = ""
    choices: tuple[ChoiceReply, ...] = ()
    usage: Usage | None = None
    error: str = ""
    complete: bool = False
    """True once every choice finished or the dialect's end marker came."""


class _Call:
    __slots__ = ("arguments", "custom", "id", "name", "signature")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []
        self.custom = False
        self.signature = ""


class _Thought:
    __slots__ = ("format", "id", "signature", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.signature = ""
        self.id = ""
        self.format = ""

    def add(self, piece: Reasoning) -> None:
        self.text.append(piece.text)
        self.signature += piece.signature
        self.id = self.id or piece.id
        self.format = self.format or piece.format


class _Choice:
    __slots__ = ("calls", "finish", "reasoning", "refusal", "server_tools", "spoken", "text")

    def __init__(self) -> None:
        self.text: list[str] = []
        self.refusal: list[str] = []
        self.reasoning: dict[tuple[int, ReasoningKind], _Thought] = {}
        self.calls: dict[int, _Call] = {}
        self.server_tools: dict[int, ServerToolUse] = {}
        self.finish = ""
        self.spoken = False


class Assembly:
    """Folds events, in order, into a `Reply`. One per attempt; not thread-safe.

    Words past `most_text` characters are only counted. `reply` then takes them from `again`.
    """

    __slots__ = (
        *("_all_finished", "_choices", "_cut", "_most_text", "again", "ended", "error"),
        *("id", "model", "output_chars", "tier", "unreadable", "usage"),
    )

    def __init__(self, most_text: int = _NO_LIMIT) -> None:
        self._most_text = most_text
        self._cut = False
        self._all_finished = True
        self.again: Callable[[], Assembly] | None = None
        """Reads the whole reply once more, into an assembly without a limit."""
        self._choices: dict[int, _Choice] = {}
        self.id = ""
        self.model = ""
        self.usage: Usage | None = None
        self.tier = ""
        """The service tier, as reported with the usage."""
        self.error = ""
        self.ended = False
        self.unreadable = ""
        self.output_chars = 0

    def add(self, event: Event) -> None:  # noqa: C901  one case for each kind of event
        match event:
            case Text():
                self.add_text(event)
            case Reasoning():
                self._add_reasoning(event)
            case CallDelta():
                self._add_call(event)
            case Finished():
                self._finish(event)
            case UsageSeen(usage):
                self.usage = usage
                self.tier = event.tier or self.tier
            case Started(id_, model):
                self.id = self.id or id_
                self.model = self.model or model
            case Refusal(choice, text):
                self.output_chars += len(text)
                said = self._choice(choice).refusal
                if self._keeps():
                    said.append(text)
            case ServerTool(choice, index, name, id_):
                used = ServerToolUse(index=index, name=name, id=id_)
                self._choice(choice).server_tools.setdefault(index, used)
            case Failed(message):
                self.error = message
            case Ended():
                self.ended = True
            case Unreadable(why):
                self.unreadable = why

    def add_text(self, event: Text) -> None:
        choice = self._choices.get(event.choice) or self._choice(event.choice)
        text = event.text
        self.output_chars += len(text)
        choice.spoken = choice.spoken or bool(text)
        if self.output_chars <= self._most_text:
            choice.text.append(text)
        else:
            self._cut = True

    def cut(self) -> None:
        """What comes is not all that was said."""
        self._cut = True

    @property
    def is_cut(self) -> bool:
        """Whether `reply` has to read the whole reply once more."""
        return self._cut

    def _finish(self, event: Finished) -> None:
        self._choice(event.choice).finish = event.reason
        self._all_finished = all(choice.finish for choice in self._choices.values())

    def _keeps(self) -> bool:
        """Whether the words that were just counted are kept."""
        self._cut = self._cut or self.output_chars > self._most_text
        return not self._cut

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
            self._all_finished = False
        return choice

    def _add_reasoning(self, piece: Reasoning) -> None:
        parts = self._choice(piece.choice).reasoning
        key = (piece.part, piece.kind)
        thought = parts.get(key)
        if thought is None:
            thought = parts[key] = _Thought()
        self.output_chars += len(piece.text)
        if piece.kind in OPAQUE or self._keeps():
            thought.add(piece)
        else:
            thought.add(msgspec.structs.replace(piece, text=""))

    def _add_call(self, delta: CallDelta) -> None:
        calls = self._choice(delta.choice).calls
        call = calls.get(delta.index)
        if call is None:
            call = calls[delta.index] = _Call()
        call.id = call.id or delta.id
        call.name += delta.name
        call.arguments.append(delta.arguments)
        call.custom = call.custom or delta.custom
        call.signature = call.signature or delta.signature
        self.output_chars += len(delta.arguments) + len(delta.name)

    def finished(self, choices: int = 1) -> bool:
        """True once the reply ended the way a whole one does, `choices` of them at least."""
        if self.ended:
            return True
        return self._all_finished and len(self._choices) >= choices

    def finish_reasons(self) -> tuple[str, ...]:
        """Why each choice ended, by choice; the unfinished ones are left out."""
        return tuple(choice.finish for _, choice in sorted(self._choices.items()) if choice.finish)

    def calls(self) -> tuple[ToolCall, ...]:
        """Every proposed call so far, by choice and index."""
        return tuple(
            ToolCall(
                choice=c,
                index=i,
                id=call.id,
                name=call.name,
                arguments="".join(call.arguments),
                custom=call.custom,
                signature=call.signature,
            )
            for c, choice in sorted(self._choices.items())
            for i, call in sorted(choice.calls.items())
        )

    def server_tools(self) -> tuple[ServerToolUse, ...]:
        """Every tool that the provider ran itself so far, in order."""
        choices = sorted(self._choices.items())
        return tuple([use for _, choice in choices for _, use in sorted(choice.server_tools.items())])

    def seals(self) -> list[str]:
        """The signatures and encrypted reasoning that came."""
        return [
            seal
            for choice in self._choices.values()
            for (_, kind), thought in choice.reasoning.items()
            if (seal := "".join(thought.text) if kind in OPAQUE else thought.signature)
        ]

    def spoken(self) -> frozenset[int]:
        """Choices of which some text has come."""
        return frozenset(index for index, choice in self._choices.items() if choice.spoken)

    def reply(self) -> Reply:
        if self._cut and self.again is not None:
            return self.again().reply()
        calls = self.calls()
        return Reply(
            id=self.id,
            model=self.model,
            usage=self.usage,
            error=self.error,
            complete=self.finished(),
            choices=tuple(
                ChoiceReply(
                    index=index,
                    text="".join(choice.text),
                    refusal="".join(choice.refusal),
                    reasoning=_parts(choice),
                    calls=tuple(c for c in calls if c.choice == index),
                    server_tools=tuple(use for _, use in sorted(choice.server_tools.items())),
                    finish=choice.finish,
                )
                for index, choice in sorted(self._choices.items())
            ),
        )


def _parts(choice: _Choice) -> tuple[ReasoningPart, ...]:
    return tuple(
        ReasoningPart(
            kind=kind,
            text="".join(thought.text),
            signature=thought.signature,
            id=thought.id,
            format=thought.format,
        )
        for (_, kind), thought in choice.reasoning.items()
    )
