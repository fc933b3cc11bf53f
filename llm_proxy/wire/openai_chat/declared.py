"""OpenAI chat completions, the tools that a request declares, in every form that servers of it know."""

from __future__ import annotations

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
    raws,
    remote_server,
    snake,
)
from llm_proxy.wire.document import refuse_ambiguous
from llm_proxy.wire.lenient import NONE, lenient, string, text_of
from llm_proxy.wire.request import WireRequest

SEARCHES = ("web_search_options", "search_parameters", "enable_search")
"""Keys by which a server searches the web itself: OpenAI's, xAI's, Alibaba's."""
KEYS = frozenset(
    {
        "tools",
        "functions",
        "tool_choice",
        "function_call",
        "mcp_servers",
        "plugins",
        "data_sources",
        *SEARCHES,
    }
)
_PLAIN = frozenset({"", "function", "custom"})
_RUN_BY_AGENT = ("computer_", "bash_", "text_editor_", "memory_")
"""Anthropic's tools that an agent runs, as gateways take them in this dialect."""
_GEMINI = frozenset(
    {
        *("google_search", "google_search_retrieval", "code_execution", "url_context", "google_maps"),
        *("enterprise_web_search", "retrieval", "computer_use", "file_search", "mcp_servers"),
    }
)
_NO_TOOL = frozenset({"type", "cache_control", "name"})
_FOLLOW = {"tools": ("tool_choice", "parallel_tool_calls"), "functions": ("function_call",)}
_AUTO = frozenset({"auto", "none", ""})


class _Named(msgspec.Struct, gc=False):
    name: str = ""


class _Tool(msgspec.Struct, gc=False):
    type: msgspec.Raw = NONE
    name: msgspec.Raw = NONE
    function: _Named | None = None
    custom: _Named | None = None
    server_label: msgspec.Raw = NONE
    url: msgspec.Raw = NONE
    server_url: msgspec.Raw = NONE


class _Allowed(msgspec.Struct, gc=False):
    mode: str | None = None
    tools: list[_Tool] | None = None


class _Chosen(msgspec.Struct, gc=False):
    type: str | None = None
    name: str | None = None
    function: _Named | None = None
    custom: _Named | None = None
    allowed_tools: _Allowed | None = None


_tool = lenient(_Tool)
_named = lenient(_Named)
_chosen = lenient(_Chosen)


def read_declared(request: WireRequest) -> Declarations:
    """Every declaration of the request. Raises `ProxyError` for a key twice in one of them."""
    found = [_declared(raw, ("tools", i)) for i, raw in enumerate(elements(request, "tools"))]
    for i, raw in enumerate(elements(request, "functions", "a function")):
        function = _named(raw) or _Named()
        found.append(Declared(paths=(("functions", i),), names=(function.name,)))
    found += [_server(raw, ("mcp_servers", i)) for i, raw in enumerate(elements(request, "mcp_servers"))]
    found += [_plugin(raw, i) for i, raw in enumerate(elements(request, "plugins", "a plugin"))]
    for key in (*SEARCHES, "data_sources"):
        value = given(request, key)
        if value is not None and value != b"false":
            refuse_ambiguous(value, key, "the options")
            name = "web_search" if key in SEARCHES else key
            hosted = Hosted(name=name, arguments=as_object(value), unseen=True)
            found.append(Declared(paths=((key,),), hosted=(hosted,)))
    return Declarations(tuple(found), tuple(_choices(request)), _FOLLOW)


def _declared(raw: msgspec.Raw, path: Path) -> Declared:
    tool = _tool(raw) or _Tool()
    kind = text_of(tool.type)
    if kind in ("mcp", "url"):
        return _server(raw, path)
    names = [one.name for one in (tool.function, tool.custom) if one is not None]
    keys = {snake(key) for key in raws(raw) or ()}
    hosted = keys & _GEMINI
    if kind.startswith(_RUN_BY_AGENT):
        names = names or [string(tool.name) or plain(kind)]
    elif kind not in _PLAIN:
        hosted.add(plain(kind))
    elif not names:
        hosted |= keys - _NO_TOOL
        names = [] if hosted else [""]
    arguments = as_object(bytes(raw))
    return Declared(
        paths=(path,),
        names=tuple(names),
        hosted=tuple([Hosted(name=name, arguments=arguments, unseen=True) for name in sorted(hosted)]),
    )


def _server(raw: msgspec.Raw, path: Path) -> Declared:
    tool = _tool(raw) or _Tool()
    label = string(tool.server_label) or string(tool.name) or ""
    url = tool.server_url if bytes(tool.server_url) != b"null" else tool.url
    return Declared(paths=(path,), hosted=(remote_server(label, url, None, unseen=True),))


def _plugin(raw: msgspec.Raw, index: int) -> Declared:
    """OpenRouter's: its `web` is a search, any other goes by its id."""
    id_ = text_of((raws(raw) or {}).get("id", NONE))
    name = "web_search" if id_ == "web" else id_
    hosted = Hosted(name=name, arguments=as_object(bytes(raw)), unseen=True)
    return Declared(paths=(("plugins", index),), hosted=(hosted,))


def _choices(request: WireRequest) -> list[Choice]:
    found: list[Choice] = []
    for key in ("tool_choice", "function_call"):
        value = given(request, key)
        if value is None:
            continue
        refuse_ambiguous(value, key, "the choice")
        word = string(value)
        if word is not None:
            found.append(Choice(key=key, required=word not in _AUTO))
        elif key == "function_call":
            found.append(Choice(key=key, named=(_named(value) or _Named()).name))
        else:
            found.append(_choice(key, _chosen(value) or _Chosen()))
    return found


def _choice(key: str, chosen: _Chosen) -> Choice:
    if allowed := chosen.allowed_tools:
        listed = [
            ((key, "allowed_tools", "tools", i), frozenset([_chosen_name(tool)]))
            for i, tool in enumerate(allowed.tools or ())
        ]
        return Choice(key=key, required=allowed.mode == "required", listed=tuple(listed))
    named = chosen.function or chosen.custom
    name = named.name if named else chosen.name or ""
    kind = chosen.type or ""
    if not name and kind not in _PLAIN and kind not in ("auto", "none", "any", "required"):
        name = plain(kind)
    return Choice(key=key, required=kind not in _AUTO, named=name)


def _chosen_name(tool: _Tool) -> str:
    named = tool.function or tool.custom
    return named.name if named else string(tool.name) or plain(text_of(tool.type))
