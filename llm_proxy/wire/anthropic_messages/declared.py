"""Anthropic Messages, the tools that a request declares: the caller's, the vendor's, and MCP servers."""

from __future__ import annotations

import re

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
    remote_server,
)
from llm_proxy.wire.document import refuse_ambiguous
from llm_proxy.wire.lenient import NONE, array, lenient, string, text_of
from llm_proxy.wire.request import WireRequest

KEYS = frozenset({"tools", "tool_choice", "mcp_servers"})
_RUN_BY_AGENT = ("bash_", "text_editor_", "computer_2", "memory_")
_TOOLSET = re.compile(r"(browser|computer)_toolset_\d+\Z")
_CODE = ("code_execution", "bash_code_execution", "text_editor_code_execution")
_USES = {"code_execution": _CODE, "web_search": _CODE, "web_fetch": _CODE}
"""Searching and fetching run code to filter what they find."""
_FOLLOW = {"tools": ("tool_choice",)}


class _Tool(msgspec.Struct, gc=False):
    """Every value raw: one of an unexpected type must not hide the others."""

    type: msgspec.Raw = NONE
    name: msgspec.Raw = NONE
    mcp_server_name: msgspec.Raw = NONE
    default_config: msgspec.Raw = NONE
    configs: msgspec.Raw = NONE
    url: msgspec.Raw = NONE
    tool_configuration: msgspec.Raw = NONE


class _Config(msgspec.Struct, gc=False):
    enabled: bool | None = None
    allowed_tools: list[str] | None = None


class _Message(msgspec.Struct, gc=False):
    content: msgspec.Raw = NONE


class _Block(msgspec.Struct, gc=False):
    type: msgspec.Raw = NONE
    tool: msgspec.Raw = NONE


class _Defined(msgspec.Struct, gc=False):
    definition: msgspec.Raw = NONE


_tool = lenient(_Tool)
_config = lenient(_Config)
_configs = lenient(dict[str, _Config])
_message = lenient(_Message)
_block = lenient(_Block)
_defined = lenient(_Defined)


def declaring_messages(request: WireRequest) -> list[tuple[int, bytes]]:
    """Messages that may define tools, each by its place from the end."""
    messages = request.messages
    return [
        (n - len(messages), raw)
        for n, raw in enumerate(messages)
        if (b'"tool_addition"' in raw or b"\\u00" in raw) and any(_definitions(raw))
    ]


def read_declared(request: WireRequest) -> Declarations:
    """Every declaration of the request. Raises `ProxyError` for a key twice in one of them."""
    servers = dict(enumerate(_tool(raw) or _Tool() for raw in elements(request, "mcp_servers", "a server")))
    found: list[Declared] = []
    toolsets: dict[str, list[tuple[Path, _Tool]]] = {string(of.name) or "": [] for of in servers.values()}
    for n, raw in enumerate(elements(request, "tools")):
        tool = _tool(raw) or _Tool()
        if text_of(tool.type) == "mcp_toolset":
            toolsets.setdefault(string(tool.mcp_server_name) or "", []).append((("tools", n), tool))
        else:
            found.append(_declared(raw, tool, ("tools", n)))
    for label, sets in toolsets.items():
        own = [(("mcp_servers", n), of) for n, of in servers.items() if (string(of.name) or "") == label]
        found += _servers(label, own, sets)
    for place, message in declaring_messages(request):
        refuse_ambiguous(message, "messages", "a message")
        found += [_inline(raw, place) for raw in _definitions(message)]
    return Declarations(tuple(found), tuple(_choices(request)), _FOLLOW)


def _declared(raw: msgspec.Raw, tool: _Tool, path: Path) -> Declared:
    kind, name = text_of(tool.type), string(tool.name)
    if kind in ("", "custom"):
        return Declared(paths=(path,), names=(name or "",))
    if toolset := _TOOLSET.match(kind):
        return Declared(paths=(path,), family=f"{toolset[1]}.")
    if kind.startswith(_RUN_BY_AGENT):
        return Declared(paths=(path,), names=(name or plain(kind),))
    own = plain(kind)
    hosted = Hosted(name=own, arguments=as_object(bytes(raw)), uses=_USES.get(own, ()))
    return Declared(paths=(path,), hosted=(hosted,))


def _servers(label: str, own: list[tuple[Path, _Tool]], sets: list[tuple[Path, _Tool]]) -> list[Declared]:
    """A server goes with every toolset of it. Of several under one name each is judged."""
    paths = tuple([path for path, _ in (*own, *sets)])
    allowed = _allowed([of for _, of in own], [of for _, of in sets])
    hosted = [remote_server(label, of.url, allowed) for _, of in own] or [remote_server(label, NONE, allowed)]
    return [Declared(paths=paths, hosted=tuple(hosted))] if paths else []


def _allowed(servers: list[_Tool], sets: list[_Tool]) -> list[str] | None:
    """The server's tools that are enabled; None where not all of them are named."""
    names: list[str] = []
    lists = [_config(of.tool_configuration) for of in servers]
    if not sets or any(of and (of.allowed_tools is not None or of.enabled is False) for of in lists):
        for of in lists:
            if of is None or (of.allowed_tools is None and of.enabled is not False):
                return None
            names += of.allowed_tools or () if of.enabled is not False else ()
        return names
    for of in sets:
        default = _config(of.default_config)
        if default is None or default.enabled is not False:
            return None
        configs = _configs(of.configs)
        if configs is None and bytes(of.configs) != b"null":
            return None
        names += [name for name, config in (configs or {}).items() if config.enabled]
    return names


def _definitions(message: bytes) -> list[msgspec.Raw]:
    """Tools that are defined inside a message."""
    read = _message(message)
    found: list[msgspec.Raw] = []
    for raw in array(read.content) or () if read else ():
        block = _block(raw)
        if block and string(block.type) == "tool_addition":
            defined = _defined(block.tool)
            if defined and bytes(defined.definition) != b"null":
                found.append(defined.definition)
    return found


def _inline(raw: msgspec.Raw, place: int) -> Declared:
    tool = _tool(raw) or _Tool()
    if text_of(tool.type) == "mcp_toolset":
        hosted = remote_server(string(tool.mcp_server_name) or "", NONE, _allowed([], [tool]))
        return Declared(paths=(), hosted=(hosted,), fixed=True)
    return msgspec.structs.replace(_declared(raw, tool, ("messages", place)), paths=(), fixed=True)


def _choices(request: WireRequest) -> list[Choice]:
    value = given(request, "tool_choice")
    if value is None:
        return []
    refuse_ambiguous(value, "tool_choice", "the choice")
    choice = _tool(value) or _Tool()
    kind = text_of(choice.type)
    named = string(choice.name) or "" if kind == "tool" else ""
    return [Choice(key="tool_choice", required=kind in ("any", "tool"), named=named)]
