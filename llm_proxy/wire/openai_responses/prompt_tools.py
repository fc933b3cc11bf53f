"""OpenAI Responses, the tools that a request declares and its choice among them, in neutral terms.

A namespace's members become tools of their own, named `crm__get_customer`; `Declared` finds the way back.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from llm_proxy.chat.prompt import Choose, Tool, ToolChoice
from llm_proxy.wire.faults import invalid, unsupported
from llm_proxy.wire.lenient import NONE
from llm_proxy.wire.openai_responses import prompt_schema as schema
from llm_proxy.wire.openai_responses.calls import full_name

_KEPT = ("function", "custom")
_HINTS = ("defer_loading", "allowed_callers", "output_schema")


class Place(msgspec.Struct, frozen=True, gc=False):
    """How the caller itself named a tool."""

    name: str
    namespace: str = ""
    custom: bool = False


class Declared(msgspec.Struct):
    """What the tools of a request came to, in order, and the hints that were left out."""

    tools: list[Tool]
    places: dict[str, Place]
    """Every tool's flat name → what the caller calls it."""
    dropped: list[str]

    def flat(self, name: str, namespace: str = "") -> str:
        """A tool's flat name. A namespace's member may also be named `crm.get_customer`."""
        if namespace:
            return full_name(namespace, name)
        if name not in self.places and "." in name:
            qualified = full_name(*name.split(".", 1))
            return qualified if qualified in self.places else name
        return name

    def members(self, namespace: str) -> list[str]:
        return [flat for flat, place in self.places.items() if place.namespace == namespace]


def declare(tools: Sequence[schema.Tool], where: str = "tools", into: Declared | None = None) -> Declared:
    """Read a list of tools, added to what `into` holds. Raises `ProxyError` where one has no name."""
    declared = into or Declared([], {}, [])
    for index, tool in enumerate(tools):
        if tool.type == "namespace":
            _add_namespace(tool, f"{where}[{index}]", declared)
        else:
            _add(tool, f"{where}[{index}]", "", declared)
    return declared


def _add_namespace(tool: schema.Tool, where: str, declared: Declared) -> None:
    if not tool.name:
        raise invalid(f"{where}.name is missing: name the namespace", f"{where}.name")
    for index, member in enumerate(tool.tools or ()):
        _add(member, f"{where}.tools[{index}]", tool.name, declared)


def _add(tool: schema.Tool, where: str, namespace: str, declared: Declared) -> None:
    if tool.type not in _KEPT:
        declared.dropped.append(f"{where} ({tool.type or 'no type'})")
        return
    if not tool.name:
        raise invalid(f"{where}.name is missing: name the tool", f"{where}.name")
    custom = tool.type == "custom"
    name = full_name(namespace, tool.name)
    declared.places[name] = Place(tool.name, namespace, custom)
    declared.tools.append(
        Tool(
            name=name,
            description=tool.description or "",
            parameters=b"" if custom else _given(tool.parameters),
            strict=None if custom else tool.strict,
            custom=custom,
            grammar=_given(tool.format) if custom else b"",
        )
    )
    hints = [f"tools.{hint}" for hint in _HINTS if getattr(tool, hint) not in (None, False, NONE)]
    declared.dropped += [hint for hint in hints if hint not in declared.dropped]


def read_choice(
    choice: str | schema.Choice | None, declared: Declared
) -> tuple[ToolChoice | None, tuple[str, ...]]:
    """The choice and the hints it lost. None where no tool is left and none has to be called.

    Raises `ProxyError`: unsupported_feature where it asks for a tool that only the vendor runs.
    """
    if choice is None:
        return None, ()
    if isinstance(choice, str):
        if choice not in ("auto", "none", "required"):
            raise invalid(f"tool_choice is {choice!r}: send auto, none, required or an object", "tool_choice")
        return _without_tools(ToolChoice(mode=Choose(choice)), declared), ()
    if choice.type == "allowed_tools":
        return _read_allowed(choice, declared)
    if choice.type not in _KEPT:
        raise _vendors_own(choice.type)
    if not choice.name:
        raise invalid("tool_choice.name is missing: name the tool", "tool_choice.name")
    name = declared.flat(choice.name, choice.namespace or "")
    return ToolChoice(mode=Choose.TOOL, name=name), ()


def _without_tools(choice: ToolChoice, declared: Declared) -> ToolChoice | None:
    if declared.tools:
        return choice
    if choice.mode is Choose.REQUIRED and declared.dropped:
        raise _vendors_own("required")
    return choice if choice.mode is Choose.REQUIRED else None


def _read_allowed(choice: schema.Choice, declared: Declared) -> tuple[ToolChoice | None, tuple[str, ...]]:
    names: list[str] = []
    lost = False
    for tool in choice.tools or ():
        if tool.type == "namespace":
            names += declared.members(tool.name or "")
        elif tool.type in _KEPT and tool.name:
            names.append(declared.flat(tool.name, tool.namespace or ""))
        else:
            lost = True
    dropped = ("tool_choice.tools",) if lost else ()
    mode = Choose.REQUIRED if choice.mode == "required" else Choose.AUTO
    if names:
        return ToolChoice(mode=mode, allowed=tuple(names)), dropped
    if mode is Choose.REQUIRED:
        raise _vendors_own("allowed_tools")
    return _without_tools(ToolChoice(mode=Choose.NONE), declared), dropped


def _vendors_own(what: str | None) -> Exception:
    return unsupported(
        f"tool_choice ({what}) asks for a tool that only its vendor runs, and this model has another vendor: "
        "choose auto or a function, or a model of that vendor",
        "tool_choice",
    )


def _given(raw: msgspec.Raw) -> bytes:
    value = bytes(raw)
    return b"" if value == b"null" else value
