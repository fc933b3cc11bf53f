"""The tools that a request declares, read in every dialect, and taken out of it byte by byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.errors import ProxyError
from llm_proxy.offer import Offer, offer
from llm_proxy.policy.offers import Reason
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES, COUNT_TOKENS
from llm_proxy.wire.declared import Declarations
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES
from llm_proxy.wire.spans import splice

BASES: dict[str, tuple[Dialect, dict[str, Any]]] = {
    "chat": (OPENAI_CHAT, {"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    "responses": (OPENAI_RESPONSES, {"model": "m", "input": "hi"}),
    "messages": (
        ANTHROPIC_MESSAGES,
        {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    ),
}


def read(kind: str, **more: Any) -> tuple[bytes, Declarations]:
    dialect, base = BASES[kind]
    body = json.dumps(base | more).encode()
    assert dialect.declares is not None
    return body, dialect.declares.read(dialect.parse(body))


def told(kind: str, tool: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of one declared tool's calls, and of what the provider runs."""
    (declared,) = read(kind, tools=[tool])[1].tools
    return declared.names or ((declared.family,) if declared.family else ()), tuple(
        hosted.name for hosted in declared.hosted
    )


FUNCTION = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("kind", "tool", "names", "hosted"),
    [
        ("chat", FUNCTION, ["f"], []),
        ("chat", {"function": {"name": "f"}}, ["f"], []),
        ("chat", {"type": "custom", "custom": {"name": "c"}}, ["c"], []),
        ("chat", {"type": "web_search_20250305", "name": "web_search"}, [], ["web_search"]),
        ("chat", FUNCTION | {"type": "web_search"}, ["f"], ["web_search"]),
        ("chat", {"type": "computer_20250124", "function": {"name": "computer"}}, ["computer"], []),
        ("chat", {"googleSearch": {}}, [], ["google_search"]),
        ("chat", {"code_execution": {}, "urlContext": {}}, [], ["code_execution", "url_context"]),
        ("chat", FUNCTION | {"googleSearch": {}}, ["f"], ["google_search"]),
        ("chat", {"type": "url", "name": "crm", "url": "https://x.example"}, [], ["mcp__crm"]),
        ("chat", {"type": "browser_search"}, [], ["browser_search"]),
        ("chat", {}, [""], []),
        ("responses", {"type": "function", "name": "f"}, ["f"], []),
        ("responses", {"type": "custom", "name": "c"}, ["c"], []),
        ("responses", {"type": "web_search_preview_2025_03_11"}, [], ["web_search"]),
        ("responses", {"type": "web_search"}, [], ["web_search"]),
        ("responses", {"type": "file_search", "vector_store_ids": ["v"]}, [], ["file_search"]),
        ("responses", {"type": "code_interpreter", "container": "c"}, [], ["code_interpreter"]),
        ("responses", {"type": "image_generation"}, [], ["image_generation"]),
        ("responses", {"type": "mcp", "server_label": "crm"}, [], ["mcp__crm"]),
        ("responses", {"type": "computer_use_preview"}, ["computer"], []),
        ("responses", {"type": "computer"}, ["computer"], []),
        ("responses", {"type": "local_shell"}, ["local_shell"], []),
        ("responses", {"type": "apply_patch"}, ["apply_patch"], []),
        ("responses", {"type": "shell"}, ["shell"], []),
        ("responses", {"type": "shell", "environment": {"type": "local"}}, ["shell"], []),
        ("responses", {"type": "shell", "environment": {"type": "container_auto"}}, [], ["shell"]),
        ("responses", {"type": "tool_search"}, [], ["tool_search"]),
        ("responses", {"type": "tool_search", "execution": "client"}, ["tool_search"], []),
        ("responses", {"type": "brand_new"}, [], ["brand_new"]),
        ("messages", {"name": "f", "input_schema": {}}, ["f"], []),
        ("messages", {"type": "custom", "name": "f", "input_schema": {}}, ["f"], []),
        ("messages", {"type": "bash_20250124", "name": "bash"}, ["bash"], []),
        ("messages", {"type": "memory_20250818", "name": "memory"}, ["memory"], []),
        ("messages", {"type": "text_editor_20250728", "name": "edit"}, ["edit"], []),
        ("messages", {"type": "computer_20250124", "name": "computer"}, ["computer"], []),
        ("messages", {"type": "browser_toolset_20260801"}, ["browser."], []),
        ("messages", {"type": "web_search_20250305", "name": "web_search"}, [], ["web_search"]),
        ("messages", {"type": "code_execution_20250825", "name": "x"}, [], ["code_execution"]),
        ("messages", {"type": "tool_search_tool_bm25", "name": "x"}, [], ["tool_search_tool_bm25"]),
        ("messages", {"type": "mcp_toolset", "mcp_server_name": "crm"}, [], ["mcp__crm"]),
    ],
)
def test_every_kind_of_tool_has_its_name(
    kind: str, tool: dict[str, Any], names: list[str], hosted: list[str]
) -> None:
    assert told(kind, tool) == (tuple(names), tuple(hosted))


def test_other_keys_declare_tools_too() -> None:
    _, found = read(
        "chat",
        functions=[{"name": "old"}],
        web_search_options={},
        plugins=[{"id": "web"}, {"id": "file-parser"}],
        mcp_servers=[{"type": "url", "name": "crm", "url": "https://x.example"}],
        enable_search=False,
    )
    assert [tool.title for tool in found.tools] == [
        "old",
        "mcp__crm",
        "web_search",
        "file-parser",
        "web_search",
    ]


def test_tools_in_the_input_of_responses_are_found_however_they_are_spelt() -> None:
    item = {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "late"}]}
    body, found = read("responses", input=[item, {"role": "user", "content": "hi"}])
    assert [(t.title, t.paths) for t in found.tools] == [("late", (("input", -2, "tools", 0),))]
    sly = body.replace(b"additional_tools", b"additional_t\\u006fols").replace(b'"tools"', b'"t\\u006fols"')
    assert sly.count(b"\\u006f") == 2
    assert OPENAI_RESPONSES.declares is not None
    again = OPENAI_RESPONSES.declares.read(OPENAI_RESPONSES.parse(sly))
    assert [tool.title for tool in again.tools] == ["late"]


def test_a_tool_defined_inside_a_message_is_found() -> None:
    tool = {"type": "tool_definition", "definition": {"name": "late", "input_schema": {}}}
    block = {"type": "tool_addition", "tool": tool}
    _, found = read("messages", messages=[{"role": "user", "content": [block]}])
    (late,) = found.tools
    assert (late.names, late.fixed, late.paths) == (("late",), True, ())


def test_a_namespace_is_its_members() -> None:
    member = {"type": "function", "name": "get"}
    _, found = read("responses", tools=[{"type": "namespace", "name": "crm", "tools": [member]}])
    assert [(t.names, t.paths) for t in found.tools] == [(("crm__get",), (("tools", 0, "tools", 0),))]


@pytest.mark.parametrize(
    ("approval", "allowed", "free"),
    [
        (None, ["a"], ()),
        ("always", ["a"], ()),
        ("never", ["a", "b"], ("crm__a", "crm__b")),
        ("never", {"tool_names": ["a"]}, ("crm__a",)),
        ("never", {"read_only": True}, None),
        ("never", None, None),
        ({"never": {"tool_names": ["b"]}}, None, ("crm__b",)),
        ({"never": {"read_only": True}}, None, None),
        ({"always": {"tool_names": ["b"]}}, None, ()),
        ("NEVER?", None, None),
        (7, None, None),
    ],
)
def test_which_tools_of_a_server_run_unasked(approval: Any, allowed: Any, free: Any) -> None:
    tool = {"type": "mcp", "server_label": "crm", "require_approval": approval, "allowed_tools": allowed}
    (declared,) = read("responses", tools=[tool])[1].tools
    assert declared.hosted[0].free == free


def test_a_messages_server_goes_with_its_toolset() -> None:
    server = {"type": "url", "name": "crm", "url": "https://crm.example"}
    toolset: dict[str, Any] = {
        "type": "mcp_toolset",
        "mcp_server_name": "crm",
        "default_config": {"enabled": False},
    }
    toolset["configs"] = {"get": {"enabled": True}, "put": {"enabled": False}}
    _, found = read("messages", mcp_servers=[server], tools=[{"name": "f"}, toolset])
    (_, crm) = found.tools
    assert crm.paths == (("mcp_servers", 0), ("tools", 1))
    assert crm.hosted[0].free == ("crm__get",)
    assert json.loads(crm.hosted[0].arguments)["server_url"] == "https://crm.example"


@pytest.mark.parametrize("kind", ["chat", "responses", "messages"])
def test_a_key_twice_in_a_declaration_is_refused(kind: str) -> None:
    dialect, base = BASES[kind]
    body = json.dumps(base | {"tools": [{"name": "a", "type": "custom"}]}).encode()
    twice = body.replace(b'"name": "a"', b'"name": "a", "x": {"k": 1, "k": 2}')
    assert dialect.declares is not None
    with pytest.raises(ProxyError, match="'k' occurs twice"):
        dialect.declares.read(dialect.parse(twice))


def without(kind: str, *gone: str, **more: Any) -> tuple[dict[str, Any], Offer]:
    """The body as sent on where these tools are withheld."""
    dialect, _ = BASES[kind]
    body, found = read(kind, **more)
    reasons = [Reason("no", "so") if tool.title in gone else None for tool in found.tools]
    made = offer(found, reasons, shadow=False, passes=False)
    return json.loads(splice(body, made.edits(dialect.parse(body)))), made


def test_what_is_withheld_leaves_the_rest_as_it_was() -> None:
    a, b, c = ({"type": "function", "function": {"name": name}} for name in "abc")
    for gone, left in (("a", [b, c]), ("b", [a, c]), ("c", [a, b]), ("ab", [c]), ("bc", [a]), ("ac", [b])):
        sent, made = without("chat", *gone, tools=[a, b, c], tool_choice="auto")
        assert sent == BASES["chat"][1] | {"tools": left, "tool_choice": "auto"}
        assert [one.tool for one in made.withheld] == list(gone)


def test_an_empty_list_goes_with_what_hangs_on_it() -> None:
    more = {"tools": [FUNCTION], "tool_choice": "auto", "parallel_tool_calls": False, "seed": 1}
    assert without("chat", "f", **more)[0] == BASES["chat"][1] | {"seed": 1}
    legacy = {"functions": [{"name": "f"}], "function_call": "auto"}
    assert without("chat", "f", **legacy)[0] == BASES["chat"][1]
    own = {"tools": [{"name": "f"}], "tool_choice": {"type": "auto"}}
    assert without("messages", "f", **own)[0] == BASES["messages"][1]


def test_a_namespace_of_which_nothing_is_left_goes() -> None:
    members = [{"type": "function", "name": name} for name in ("get", "put")]
    space = {"type": "namespace", "name": "crm", "tools": members}
    other = {"type": "function", "name": "other"}
    sent, _ = without("responses", "crm__put", tools=[space, other])
    assert sent["tools"] == [space | {"tools": members[:1]}, other]
    sent, _ = without("responses", "crm__put", "crm__get", tools=[space, other])
    assert sent["tools"] == [other]
    sent, _ = without("responses", "crm__put", "crm__get", tools=[space])
    assert "tools" not in sent


def test_a_servers_toolset_goes_with_it() -> None:
    server = {"type": "url", "name": "crm", "url": "https://crm.example"}
    toolset = {"type": "mcp_toolset", "mcp_server_name": "crm"}
    sent, _ = without("messages", "mcp__crm", mcp_servers=[server], tools=[{"name": "f"}, toolset])
    assert sent == BASES["messages"][1] | {"tools": [{"name": "f"}]}


CHOICES: list[tuple[str, dict[str, Any], str]] = [
    ("chat", {"tool_choice": {"type": "function", "function": {"name": "f"}}}, "'f'"),
    ("chat", {"tool_choice": "required", "tools": [FUNCTION]}, "'f'"),
    ("chat", {"tools": [], "functions": [{"name": "f"}], "function_call": {"name": "f"}}, "'f'"),
    ("responses", {"tool_choice": {"type": "function", "name": "f"}}, "'f'"),
    ("responses", {"tool_choice": {"type": "web_search_preview"}}, "'web_search'"),
    ("responses", {"tool_choice": {"type": "mcp", "server_label": "crm"}}, "'mcp__crm'"),
    ("messages", {"tool_choice": {"type": "tool", "name": "f"}}, "'f'"),
    ("messages", {"tool_choice": {"type": "any"}, "tools": [{"name": "f"}]}, "'f'"),
    (
        "responses",
        {"tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "web_search"}]}},
        "'web_search'",
    ),
]
TOOLS: dict[str, list[Any]] = {
    "chat": [FUNCTION, {"type": "function", "function": {"name": "ok"}}],
    "responses": [
        *({"type": "function", "name": name} for name in ("f", "ok")),
        {"type": "web_search"},
        {"type": "mcp", "server_label": "crm"},
    ],
    "messages": [{"name": "f"}, {"name": "ok"}],
}


@pytest.mark.parametrize(("kind", "asked", "named"), CHOICES)
def test_a_choice_that_forces_what_is_withheld_is_refused(
    kind: str, asked: dict[str, Any], named: str
) -> None:
    _, made = without(kind, "f", "web_search", "mcp__crm", **({"tools": TOOLS[kind]} | asked))
    assert named in made.refusal
    assert "rule 'no'" in made.refusal
    _, made = without(kind, **({"tools": TOOLS[kind]} | asked))
    assert made.refusal == ""


def test_a_list_of_allowed_tools_loses_what_is_withheld() -> None:
    named = [{"type": "function", "function": {"name": name}} for name in ("f", "ok")]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": named}}
    sent, made = without("chat", "f", tools=TOOLS["chat"], tool_choice=choice)
    assert sent["tool_choice"]["allowed_tools"]["tools"] == named[1:]
    assert made.refusal == ""
    alone = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": named[:1]}}
    assert without("chat", "f", tools=TOOLS["chat"], tool_choice=alone)[0]["tool_choice"] == "none"


def test_shadow_withholds_nothing_but_what_an_identity_never_has() -> None:
    _, found = read("chat", tools=[FUNCTION, *TOOLS["chat"][1:]])
    reasons = [Reason("agent-tools", "so"), Reason("unknown-tool", "so")]
    made = offer(found, reasons, shadow=True, passes=False)
    assert made.gone == (("tools", 0),)
    assert [(one.rule, one.shadow) for one in made.withheld] == [
        ("agent-tools", False),
        ("unknown-tool", True),
    ]


def test_passing_refuses_what_the_provider_would_run_and_nothing_else() -> None:
    _, found = read("responses", tools=TOOLS["responses"])
    made = offer(found, [Reason("no", "so"), None, None, None], shadow=False, passes=True)
    assert (made.gone, made.refusal, made.withheld) == ((), "", ())
    made = offer(found, [None, None, Reason("no", "so"), None], shadow=False, passes=True)
    assert "'web_search' would be run by the provider itself" in made.refusal


def test_a_withheld_tool_inside_a_message_refuses_the_request() -> None:
    tool = {"type": "tool_definition", "definition": {"name": "late", "input_schema": {}}}
    message = {"role": "user", "content": [{"type": "tool_addition", "tool": tool}]}
    assert "is declared inside a message" in without("messages", "late", messages=[message])[1].refusal


def test_counting_tokens_declares_as_a_message_does() -> None:
    assert COUNT_TOKENS.declares is ANTHROPIC_MESSAGES.declares


def test_a_plan_holds_for_a_request_with_more_of_the_conversation() -> None:
    item = {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "f"}]}
    _, made = without("responses", "f", input=[item], tools=TOOLS["responses"])
    longer, found = read(
        "responses", input=[{"role": "user", "content": "x"}, item, {"role": "user", "content": "y"}]
    )
    edits = made.on(found).edits(OPENAI_RESPONSES.parse(longer))
    assert json.loads(splice(longer, edits))["input"][1]["tools"] == []
