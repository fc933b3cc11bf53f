"""What Claude Code and Codex send, and what they keep of a reply, written from what is known of them."""

from __future__ import annotations

import json
from typing import Any

from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import RawMessageStreamEvent
from pydantic import TypeAdapter

from llm_proxy.wire.sse import SseFrame
from tests.proxy import KEY

CLAUDE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def _schema(**properties: str) -> dict[str, Any]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {
            name: {"type": kind, "description": f"The {name}"} for name, kind in properties.items()
        },
        "required": list(properties)[:1],
        "additionalProperties": False,
    }


# Claude Code

SESSION = "9f0c8a52-51a7-4c0e-8d53-0a7b1f6a1c11"
CLAUDE_TOOLS: list[dict[str, Any]] = [
    {"name": name, "description": f"{name}. " + "How to use it: carefully. " * 40, "input_schema": schema}
    for name, schema in {
        "Task": _schema(description="string", prompt="string", subagent_type="string"),
        "Bash": _schema(
            command="string", timeout="number", description="string", run_in_background="boolean"
        ),
        "Glob": _schema(pattern="string", path="string"),
        "Grep": _schema(pattern="string", path="string", **{"-i": "boolean", "-A": "number"}),
        "ExitPlanMode": _schema(plan="string"),
        "Read": _schema(file_path="string", offset="number", limit="number"),
        "Edit": _schema(file_path="string", old_string="string", new_string="string", replace_all="boolean"),
        "Write": _schema(file_path="string", content="string"),
        "NotebookEdit": _schema(notebook_path="string", new_source="string"),
        "WebFetch": _schema(url="string", prompt="string"),
        "TodoWrite": {
            "type": "object",
            "properties": {"todos": {"type": "array", "items": _schema(content="string", status="string")}},
            "required": ["todos"],
        },
        "BashOutput": _schema(bash_id="string", filter="string"),
        "KillShell": _schema(shell_id="string"),
        "Skill": _schema(command="string"),
        "SlashCommand": _schema(command="string"),
        "AskUserQuestion": _schema(question="string"),
        **{f"mcp__github__{n}": _schema(owner="string", repo="string") for n in range(15)},
    }.items()
]
CLAUDE_TYPED: list[dict[str, Any]] = [
    {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
    {"type": "code_execution_20250825", "name": "code_execution"},
]
CLAUDE_HEADERS = {
    "accept": "application/json",
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14,context-management-2025-06-27,"
    "fine-grained-tool-streaming-2025-05-14",
    "anthropic-dangerous-direct-browser-access": "true",
    "anthropic-version": "2023-06-01",
    "authorization": f"Bearer {KEY}",
    "content-type": "application/json",
    "user-agent": "claude-cli/2.0.37 (external, cli)",
    "x-app": "cli",
    "x-stainless-arch": "x64",
    "x-stainless-lang": "js",
    "x-stainless-retry-count": "0",
    "x-stainless-timeout": "600",
}
REMINDER = "<system-reminder>\nAs you answer, you can use the following context:\n# claudeMd\nBe kind.\n"


def claude_body(model: str, messages: list[Any], session: str = SESSION) -> bytes:
    """A request as Claude Code writes it; the last part of the conversation marks the cache."""
    mark = {"cache_control": {"type": "ephemeral"}}
    *before, last = messages
    *parts, end = last["content"]
    user = {"device_id": "d" * 64, "account_uuid": "", "session_id": session}
    body = {
        "model": model,
        "messages": [*before, {**last, "content": [*parts, {**end, **mark}]}],
        "system": [
            {"type": "text", "text": "You are a coding agent of the command line.", **mark},
            {"type": "text", "text": "Rules – and “quotes”:\n" + "- Do as the user says.\n" * 4_600, **mark},
        ],
        "tools": CLAUDE_TOOLS + CLAUDE_TYPED,
        "metadata": {"user_id": json.dumps(user, separators=(",", ":"))},
        "max_tokens": 32_000,
        "thinking": {"budget_tokens": 31_999, "type": "enabled"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "stream": True,
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def claude_opening() -> list[Any]:
    said = [{"type": "text", "text": REMINDER}, {"type": "text", "text": "Fix the é module."}]
    return [{"role": "user", "content": said}]


def claude_results(content: list[Any]) -> dict[str, Any]:
    calls = [block for block in content if block["type"] == "tool_use"]
    results = [
        {"tool_use_id": call["id"], "type": "tool_result", "content": f"{call['name']} → ok\n"}
        for call in calls
    ]
    failed = {**results[-1], "is_error": True, "content": [{"type": "text", "text": "Exit code 1\nFAILED"}]}
    return {"role": "user", "content": [*results[:-1], failed]}


def accumulated(frames: list[SseFrame]) -> dict[str, Any]:
    """The message that Anthropic's SDK makes of a stream."""
    snapshot = None
    buffers: dict[int, bytes] = {}
    for frame in frames:
        if frame.data and b'"type": "ping"' not in frame.data and b'"type":"ping"' not in frame.data:
            event = CLAUDE_EVENT.validate_json(frame.data)
            snapshot = accumulate_event(event=event, current_snapshot=snapshot, json_bufs=buffers)
    assert snapshot is not None
    return snapshot.to_dict()


# Codex

THREAD = "0199a213-81c0-7800-8aa1-bbab2a035a53"
LARK = (
    'start: begin_patch hunk+ end_patch\nbegin_patch: "*** Begin Patch" LF\nend_patch: "*** End Patch" LF?\n'
)
CODEX_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": name,
        "description": f"{name}: " + "runs it. " * 30,
        "strict": False,
        "parameters": schema,
    }
    for name, schema in {
        "shell": {
            "type": "object",
            "properties": {
                "command": {"type": "array", "items": {"type": "string"}},
                "workdir": {"type": "string"},
                "timeout_ms": {"type": "number"},
            },
            "required": ["command"],
            "additionalProperties": False,
        },
        "update_plan": _schema(explanation="string"),
        "view_image": _schema(path="string"),
        "list_mcp_resources": _schema(server="string"),
        **{f"linear__{n}": _schema(team="string", title="string") for n in range(20)},
    }.items()
] + [
    {
        "type": "custom",
        "name": "apply_patch",
        "description": "Edits files.",
        "format": {"type": "grammar", "syntax": "lark", "definition": LARK},
    },
    {
        "type": "namespace",
        "name": "crm",
        "description": "Who owns what.",
        "tools": [
            {
                "type": "function",
                "name": "get_owner",
                "description": "The owner.",
                "strict": False,
                "parameters": _schema(path="string"),
            }
        ],
    },
    {"type": "web_search", "external_web_access": True},
    {"type": "local_shell"},
]
CODEX_HEADERS = {
    "accept": "text/event-stream",
    "authorization": f"Bearer {KEY}",
    "content-type": "application/json",
    "conversation_id": THREAD,
    "session_id": THREAD,
    "openai-beta": "responses=experimental",
    "originator": "codex_cli_rs",
    "user-agent": "codex_cli_rs/0.60.1 (Linux 6.8; x86_64) xterm",
}


def codex_body(model: str, items: list[Any]) -> bytes:
    body = {
        "model": model,
        "instructions": "You are a coding agent in the terminal.\n" + "Follow – “all” – the rules.\n" * 900,
        "input": items,
        "tools": CODEX_TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": THREAD,
        "client_metadata": {"x-codex-turn-metadata": json.dumps({"session_id": THREAD, "turn_id": "t-1"})},
        "text": {"verbosity": "low"},
    }
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def codex_opening() -> list[Any]:
    def said(role: str, text: str) -> dict[str, Any]:
        return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}

    return [
        said("developer", "<permissions>sandboxed</permissions>"),
        said("user", "<environment_context><cwd>/repo</cwd></environment_context>"),
        said("user", "Patch the é module."),
    ]


def kept(item: dict[str, Any]) -> dict[str, Any]:
    """An item as Codex keeps it for the next turn: no id, no status, no raw words of reasoning."""
    lost = ("id", "status", *(("content",) if item["type"] == "reasoning" else ()))
    return {key: value for key, value in item.items() if key not in lost}


def codex_results(items: list[Any]) -> list[Any]:
    kinds = {
        "function_call": "function_call_output",
        "custom_tool_call": "custom_tool_call_output",
    }
    return [
        {"type": kinds[item["type"]], "call_id": item["call_id"], "output": "Exit code: 0\nOutput:\nsrc\n"}
        for item in items
        if item["type"] in kinds
    ]
