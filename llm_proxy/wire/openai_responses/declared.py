"""OpenAI Responses, the tools that a request declares: at its top, and in items of its input."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from llm_proxy.wire.cutting import Path
from llm_proxy.wire.declared import (
    Choice,
    Declarations,
    Declared,
    Hosted,
    as_object,
    elements,
    given,
    plain,
    server,
)
from llm_proxy.wire.document import refuse_ambiguous
from llm_proxy.wire.lenient import NONE, array, lenient, string, text_of
from llm_proxy.wire.openai_responses.calls import full_name
from llm_proxy.wire.request import WireRequest

KEYS = frozenset({"tools", "tool_choice"})
_RUN_BY_AGENT = frozenset({"computer", "computer_use", "local_shell", "apply_patch"})
_DECLARING = frozenset({"additional_tools", "tool_search_output"})
"""Items that bring tools in mid-conversation."""
_FOLLOW = {"tools": ("tool_choice", "parallel_tool_calls", "max_tool_calls")}
_AUTO = frozenset({"auto", "none"})


class _Environment(msgspec.Struct, gc=False):
    type: msgspec.Raw = NONE


class _Tool(msgspec.Struct, gc=False):
    """Every value raw: one of an unexpected type must not hide the others."""

    type: msgspec.Raw = NONE
    name: msgspec.Raw = NONE
    namespace: msgspec.Raw = NONE
    tools: msgspec.Raw = NONE
    environment: msgspec.Raw = NONE
    execution: msgspec.Raw = NONE
    server_label: msgspec.Raw = NONE
    allowed_tools: msgspec.Raw = NONE
    require_approval: msgspec.Raw = NONE


class _Filter(msgspec.Struct, gc=False):
    tool_names: list[str] | None = None
    read_only: bool | None = None


class _Approval(msgspec.Struct, gc=False):
    never: _Filter | None = None


class _Choice(msgspec.Struct, gc=False):
    type: str | None = None
    mode: str | None = None
    tools: list[msgspec.Raw] | None = None


_tool = lenient(_Tool)
_environment = lenient(_Environment)
_listed = lenient(list[str])
_filter = lenient(_Filter)
_approval = lenient(_Approval)
_choice = lenient(_Choice)


def declaring_items(request: WireRequest) -> list[tuple[int, bytes]]:
    """Items of the input that may declare tools, each by its place from the end."""
    messages = request.messages
    return [
        (n - len(messages), raw)
        for n, raw in enumerate(messages)
        if (b"tools" in raw or b"\\u00" in raw)
        and (item := _tool(raw)) is not None
        and string(item.type) in _DECLARING
    ]


def read_declared(request: WireRequest) -> Declarations:
    """Every declaration of the request. Raises `ProxyError` for a key twice in one of them."""
    found: list[Declared] = []
    for n, raw in enumerate(elements(request, "tools")):
        found += _declared(raw, ("tools", n))
    for place, item in declaring_items(request):
        refuse_ambiguous(item, "input", "an item")
        tools = array((_tool(item) or _Tool()).tools) or ()
        for n, raw in enumerate(tools):
            found += _declared(raw, ("input", place, "tools", n))
    value = given(request, "tool_choice")
    if value is None:
        return Declarations(tuple(found), (), _FOLLOW)
    refuse_ambiguous(value, "tool_choice", "the choice")
    return Declarations(tuple(found), (_read_choice(value, found),), _FOLLOW)


def _declared(raw: msgspec.Raw, path: Path, namespace: str = "") -> Iterator[Declared]:
    tool = _tool(raw) or _Tool()
    kind, name = text_of(tool.type), string(tool.name)
    if kind == "namespace" and not namespace:
        for n, member in enumerate(array(tool.tools) or ()):
            yield from _declared(member, (*path, "tools", n), name or "")
    elif kind in ("function", "custom") or (kind == "" and name):
        yield Declared(paths=(path,), names=(full_name(namespace, name),))
    elif (own := _run_by_agent(tool, kind)) is not None:
        yield Declared(paths=(path,), names=(own,))
    else:
        hosted = _mcp(tool, raw) if kind == "mcp" else _hosted(plain(kind), raw)
        yield Declared(paths=(path,), hosted=(hosted,))


def _run_by_agent(tool: _Tool, kind: str) -> str | None:
    """The name of a built-in tool's calls, where the agent runs them."""
    name = plain(kind)
    if name in _RUN_BY_AGENT:
        return "computer" if name == "computer_use" else name
    environment = _environment(tool.environment) or _Environment()
    if name == "shell" and text_of(environment.type) in ("", "local"):
        return name
    return name if name == "tool_search" and string(tool.execution) == "client" else None


def _hosted(name: str, raw: msgspec.Raw) -> Hosted:
    return Hosted(name=name, arguments=as_object(bytes(raw)))


def _mcp(tool: _Tool, raw: msgspec.Raw) -> Hosted:
    label = string(tool.server_label) or ""
    return server(label, bytes(raw), _unasked(tool))


def _unasked(tool: _Tool) -> list[str] | None:
    """The server's tools that run without an approval; None = every one."""
    word = string(tool.require_approval)
    if bytes(tool.require_approval) == b"null" or word == "always":
        return []
    if word is None and (approval := _approval(tool.require_approval)) is not None:
        return _names(approval.never) if approval.never else []
    listed = _listed(tool.allowed_tools)
    return _names(_filter(tool.allowed_tools)) if listed is None else listed


def _names(of: _Filter | None) -> list[str] | None:
    """A filter by what a server says of its own tools may mean any of them."""
    return of.tool_names if of is not None and of.read_only is None else None


def _read_choice(value: bytes, declared: list[Declared]) -> Choice:
    word = string(value)
    if word is not None:
        return Choice(key="tool_choice", required=word not in _AUTO)
    choice = _choice(value) or _Choice()
    if choice.type == "allowed_tools":
        listed = [
            (("tool_choice", "tools", n), _chosen(raw, declared)) for n, raw in enumerate(choice.tools or ())
        ]
        return Choice(key="tool_choice", required=choice.mode == "required", listed=tuple(listed))
    if choice.type in _AUTO:
        return Choice(key="tool_choice")
    return Choice(key="tool_choice", required=True, named=next(iter(_chosen(value, declared)), ""))


def _chosen(raw: msgspec.Raw | bytes, declared: list[Declared]) -> frozenset[str]:
    """The names of what a choice means: those of all its members where that is a namespace."""
    tool = _tool(raw) or _Tool()
    kind, name = text_of(tool.type), string(tool.name) or ""
    if kind == "namespace":
        members = (own for one in declared for own in one.names)
        return frozenset([member for member in members if member.startswith(f"{name}__")])
    if kind in ("function", "custom"):
        flat = full_name(string(tool.namespace), name)
        known = {own for one in declared for own in one.names}
        qualified = full_name(*name.split(".", 1)) if "." in name and flat not in known else flat
        return frozenset([qualified])
    if kind == "mcp":
        return frozenset([f"mcp__{string(tool.server_label) or ''}"])
    return frozenset([_run_by_agent(tool, kind) or plain(kind)])
