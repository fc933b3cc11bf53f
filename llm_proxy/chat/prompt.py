"""A request that no dialect owns: what every dialect's request is read into, and written from, to translate.

Frozen and pure data. A dialect's `read_prompt` makes one, its `write_prompt` turns one into a body. What a
dialect says and this can't hold is named in `Prompt.dropped` where it is a hint, and refused where it would
change the meaning of the answer.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from llm_proxy.chat.reply import ReasoningPart


class Role(StrEnum):
    """Who speaks. Tool results stand in user messages, the way Anthropic has them."""

    SYSTEM = "system"
    """A system or developer message in the middle of a conversation; the leading ones are `Prompt.system`."""
    USER = "user"
    ASSISTANT = "assistant"


class TextPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="text"):
    text: str
    cache: bool = False
    """A prompt-cache breakpoint stands behind this part (Anthropic's `cache_control`)."""


class RefusalPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="refusal"):
    text: str


class ImagePart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="image"):
    """One of: `url` (http or https), `data` (base64, with its `media_type`), `file_id`."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    file_id: str = ""
    detail: str = ""
    cache: bool = False


class AudioPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="audio"):
    """`data` is base64, `format` wav or mp3."""

    data: str
    format: str = ""


class FilePart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="file"):
    """A document. One of: `data` (base64, with its `media_type`), `text`, `url`, `file_id`."""

    name: str = ""
    data: str = ""
    media_type: str = ""
    text: str = ""
    url: str = ""
    file_id: str = ""
    cache: bool = False


class CallPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="call"):
    """A tool call that the assistant made. `arguments` is raw JSON text, plain text where it is `custom`."""

    id: str
    name: str
    arguments: str
    custom: bool = False
    signature: str = ""
    cache: bool = False


class ResultPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="result"):
    """What a tool answered, in a user message."""

    call_id: str
    parts: tuple[TextPart | ImagePart | FilePart, ...] = ()
    is_error: bool = False
    custom: bool = False
    cache: bool = False


class ThoughtPart(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="thought"):
    """Reasoning that the assistant gave and the caller sends back."""

    thought: ReasoningPart
    own: bool = False
    """The very server that the prompt goes to sealed it, so that it takes it back whatever its format."""


Part = TextPart | RefusalPart | ImagePart | AudioPart | FilePart | CallPart | ResultPart | ThoughtPart


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`parts` in order. An assistant's holds text, refusals, thoughts and calls, a user's all but those."""

    role: Role
    parts: tuple[Part, ...]
    name: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A tool that the caller runs. `parameters` is a JSON schema as raw JSON, empty where none was given."""

    name: str
    description: str = ""
    parameters: bytes = b""
    strict: bool | None = None
    custom: bool = False
    """Freeform: it takes plain text; `grammar` is OpenAI's `format` object as raw JSON, if any."""
    grammar: bytes = b""
    cache: bool = False


class Choose(StrEnum):
    """What a tool choice asks for. `TOOL` names one, `ALLOWED` a subset."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"
    TOOL = "tool"


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    mode: Choose
    name: str = ""
    """The tool, where `mode` is `TOOL`."""
    allowed: tuple[str, ...] = ()
    """OpenAI's allowed_tools: only these may be called, the others stay declared. Empty: all."""


class Effort(StrEnum):
    """How hard to reason, in OpenAI's words and Anthropic's `max`."""

    NONE = "none"
    MINIMAL = "minimal"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    XHIGH = "xhigh"
    MAX = "max"


class Thinking(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked of reasoning; every field None where it wasn't said.

    `enabled` is Anthropic's thinking type (enabled or adaptive: True, disabled: False), `budget` its
    `budget_tokens`, `summary` whether words of it were asked for (OpenAI's `reasoning.summary`, Anthropic's
    `display`).
    """

    effort: Effort | None = None
    enabled: bool | None = None
    adaptive: bool = False
    budget: int | None = None
    summary: str = ""


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """JSON that the reply's text must be. `schema` is raw JSON; empty means any JSON object."""

    schema: bytes = b""
    name: str = ""
    description: str = ""
    strict: bool | None = None


class Prompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A whole request. None and empty stand for what was not said."""

    model: str
    messages: tuple[Message, ...]
    system: tuple[TextPart, ...] = ()
    stream: bool = False
    include_usage: bool = False
    n: int = 1
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_calls: bool | None = None
    max_output: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    thinking: Thinking | None = None
    output: OutputFormat | None = None
    verbosity: str = ""
    user: str = ""
    service_tier: str = ""
    cache_key: str = ""
    """OpenAI's `prompt_cache_key`."""
    dropped: tuple[str, ...] = ()
    """Hints of the request that this can't hold: the keys as the caller wrote them (`context_management`,
    `tools[3] (web_search)`)."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A body in some dialect, and the hints of the prompt that the dialect could not say."""

    body: bytes
    dropped: tuple[str, ...] = ()
