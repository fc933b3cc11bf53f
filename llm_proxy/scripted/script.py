"""The script of a scripted model: typed YAML that says what answers which request, and what goes wrong.

docs/scripted.md describes every field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, le=3600)]
JsonObject = dict[str, JsonValue]


class ScriptError(ValueError):
    """A script that can't be played: says which file, which field, and what is wrong with it."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class When(_Part):
    """Conditions on a request; all that are given must hold."""

    turn: Count | None = None
    """The number of assistant messages in the request."""
    last_user_contains: str | None = None
    last_assistant_contains: str | None = None
    last_tool_contains: str | None = None
    has_tool_result: bool | None = None
    """Whether any message of role `tool` is there."""
    tool_answered: str | None = None
    """A call of the tool with this name stands answered in the messages."""
    stream: bool | None = None
    model: str | None = None
    header: dict[str, str] = {}


class ToolCallScript(_Part):
    """A proposed call. `arguments` as text is sent as it stands, so it may be broken JSON."""

    name: str
    arguments: JsonObject | str = {}
    id: str | None = None
    input: str | None = None
    """Text for a tool that the request declares as custom; for any other tool it becomes `{"input": …}`."""
    namespace: str | None = None
    """Its own field where the request declares this namespace; for any other it becomes `namespace__name`."""

    @model_validator(mode="after")
    def _one_input(self) -> Self:
        if self.input is not None and self.arguments:
            raise ValueError("input and arguments exclude each other; keep one")
        return self


class ServerToolScript(_Part):
    """A web search that the vendor ran by itself, before it answered."""

    query: str
    urls: tuple[str, ...] = ()


class UsageScript(_Part):
    """Tokens to report; the rest is counted from sizes.

    `input` includes `cached` and `cache_write`, `output` includes reasoning.
    """

    input: Count | None = None
    output: Count | None = None
    cached: Count = 0
    cache_write: Count = 0
    reasoning: Count | None = None


class ErrorScript(_Part):
    """OpenAI's error object."""

    message: str = "The scripted model was told to fail."
    type: str = "server_error"
    code: str | None = None
    param: str | None = None


class Content(_Part):
    """What one choice says. `finish` is `tool_calls` or `stop` where it isn't given."""

    reasoning: str = ""
    redacted: str = ""
    """Reasoning that goes out sealed only, in dialects that have a place for it."""
    text: str = ""
    refusal: str = ""
    tool_calls: tuple[ToolCallScript, ...] = ()
    server_tools: tuple[ServerToolScript, ...] = ()
    finish: str | None = None
    stop_sequence: str | None = None
    """The stop sequence that ended the reply; only Messages names it."""


class Turn(Content):
    """One reply: its content, its pace, and at most one fault.

    `error` with a `status` is an HTTP error; without one it comes inside the reply, after the content.
    """

    when: When = When()
    fail_times: Annotated[int, Field(ge=1)] | None = None
    """Answers only the first so many requests that it matches; later ones go on to the next turn."""
    choices: tuple[Content, ...] = ()
    """What the second and later choices say where `n` > 1; without it they say what the first does."""
    usage: UsageScript | Literal["none"] = UsageScript()
    latency_s: Seconds = 0.0
    delta_s: Seconds = 0.0
    deltas: Annotated[int, Field(ge=1)] | None = None
    """Pieces into which text (and reasoning) is split in a stream; without it, one per word."""
    reasoning_field: Literal["reasoning_content", "reasoning", "reasoning_details"] = "reasoning_content"
    think_tags: bool = False
    """Chat: the reasoning stands in the content, in `<think>` tags."""
    raw_reasoning: bool = False
    """Responses: the reasoning goes out as `content` and not as a summary."""
    signature: bool = True
    """Whether reasoning is signed where the dialect signs it."""
    extra: JsonObject = {}
    choice_extra: JsonObject = {}
    message_extra: JsonObject = {}
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    error: ErrorScript | None = None
    retry_after: str | float | None = None
    headers: dict[str, str] = {}
    cut_after: Count | None = None
    stall_after: Count | None = None
    malformed_after: Count | None = None
    truncate: bool = False

    @model_validator(mode="after")
    def _one_fault(self) -> Self:
        faults = [f for f in ("cut_after", "stall_after", "malformed_after") if getattr(self, f) is not None]
        if self.truncate:
            faults.append("truncate")
        if len(faults) > 1:
            raise ValueError(f"{' and '.join(faults)} exclude each other; keep one")
        return self


class ModelScript(_Part):
    """One model. `requires_reasoning_content`: chat refuses calls sent back without it, as DeepSeek does."""

    requires_reasoning_content: bool = False
    turns: Annotated[tuple[Turn, ...], Field(min_length=1)]


class Script(_Part):
    """Models by name; `default` answers for every other name."""

    models: dict[str, ModelScript] = {}
    default: ModelScript | None = None

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.models and self.default is None:
            raise ValueError("it has no models; add `models:` or `default:`")
        return self


def parse_script(text: str, name: str = "script") -> Script:
    """A script from YAML text; `name` stands in errors. ScriptError for anything that can't be played."""
    try:
        return Script.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ScriptError(f"{name}: not YAML: {error}") from None
    except ValidationError as error:
        raise ScriptError(f"{name}: {_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    found = {problem["loc"]: problem["msg"] for problem in error.errors(include_url=False)}
    # A list with a wrong item is also called too short: only the innermost place is said.
    inner = [loc for loc in found if not any(len(o) > len(loc) and o[: len(loc)] == loc for o in found)]
    return "; ".join(f"{'.'.join(map(str, loc)) or 'the whole'}: {found[loc]}" for loc in inner)


def load_script(path: Path) -> Script:
    """A script from a YAML file. ScriptError, also where the file can't be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScriptError(f"{path}: can't be read: {error}") from None
    return parse_script(text, str(path))
