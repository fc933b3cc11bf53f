"""A proxy that exports to a backend, and a run there that has everything that a backend should show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai

from tests.proxy import KEY, ProxyProcess, config

RUN, SUB_RUN, AGENT = "run-with-everything", "run-of-the-helper", "bot"
MODEL = "planner"
THOUGHT = "The ledger says gallimaufry, so I look the customer up before I promise anything."
ANSWER = "Your colleague has to release the money; I may not."
SECOND_THOUGHT = "The mail was refused, so I tell the customer the truth."
READ = {"name": "crm_read", "arguments": {"id": "C-7"}}
MAIL = {"name": "mail_send", "arguments": {"to": "someone@example.com"}}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("crm_read", "mail_send")
]
USAGE = {"input": 420, "cached": 256, "cache_write": 64, "output": 90, "reasoning": 40}
PER_MILLION = {"input": 10.0, "cache_read": 1.0, "cache_write": 12.5, "output": 40.0}
"""US dollars, by the names that Phoenix has for the kinds of tokens."""
SCRIPT: dict[str, Any] = {
    "models": {
        MODEL: {
            "turns": [
                {
                    "when": {"turn": 0},
                    "reasoning": THOUGHT,
                    "text": "One moment.",
                    "tool_calls": [READ, MAIL],
                    "usage": USAGE,
                },
                {"reasoning": SECOND_THOUGHT, "text": ANSWER, "usage": USAGE},
            ]
        }
    }
}
POLICY: dict[str, Any] = {
    "policy": {"id": "traced", "version": 1},
    "on_deny": "replace",
    "tools": {
        "crm_read": {"effect": "read", "tier": "autonomous"},
        "mail_send": {"effect": "irreversible", "tier": "prohibited"},
    },
}


def traced_proxy(folder: Path, endpoint: str, *, protocol: str = "http/protobuf") -> ProxyProcess:
    """A proxy, not started yet, whose spans go to `endpoint`. Its model is scripted."""
    script = folder / "script.yaml"
    script.write_text(json.dumps(SCRIPT))
    price = {
        "input_cost_per_token": PER_MILLION["input"] / 1e6,
        "cache_read_input_token_cost": PER_MILLION["cache_read"] / 1e6,
        "cache_creation_input_token_cost": PER_MILLION["cache_write"] / 1e6,
        "output_cost_per_token": PER_MILLION["output"] / 1e6,
    }
    target = {"id": "scripted-1", "provider": "scripted", "script": str(script)}
    settings = config(
        "",
        models={MODEL: {"targets": [target]}},
        agents={AGENT: {"team": "crew", "keys": [KEY], "models": [MODEL]}},
        prices={MODEL: price},
        telemetry={"otlp_endpoint": endpoint, "protocol": protocol},
    )
    return ProxyProcess(folder, settings, policy=POLICY)


async def play(proxy: ProxyProcess) -> list[str]:
    """Tools proposed (one denied), an answer, a sub-run, a refused call: the ids of these four calls."""
    asked: list[Any] = [{"role": "user", "content": "I want my money back."}]
    calls: list[str] = []

    async def said(run: str, **more: Any) -> Any:
        reply = await sdk.chat.completions.with_raw_response.create(
            model=MODEL, messages=asked, tools=TOOLS, extra_headers={"x-run-id": run, **more}
        )
        calls.append(reply.headers["x-call-id"])
        return reply.parse().choices[0].message

    async with proxy.sdk() as sdk:
        first = await said(RUN)
        asked.append(first.model_dump(exclude_none=True))
        asked += [
            {"role": "tool", "tool_call_id": call.id, "content": "C-7 is a customer."}
            for call in first.tool_calls
        ]
        await said(RUN)
        await said(SUB_RUN, **{"x-parent-run-id": RUN})
        try:
            await sdk.chat.completions.create(
                model="unheard-of", messages=asked, extra_headers={"x-run-id": RUN}
            )
        except openai.NotFoundError as error:
            calls.append(error.response.headers["x-call-id"])
    return calls
