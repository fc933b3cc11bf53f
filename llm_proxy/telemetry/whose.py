"""What every span of a run says of it, in the words that backends look for."""

from __future__ import annotations

import msgspec

from llm_proxy.records.view import CallView
from llm_proxy.telemetry.attributes import Value


def whose(
    *,
    call: str = "",
    run: str,
    agent: str,
    parent_run: str = "",
    team: str = "",
    role: str = "",
    user: str = "",
    kind: str,
) -> dict[str, Value]:
    """`kind` is OpenInference's: LLM, EMBEDDING, TOOL, AGENT or CHAIN."""
    known = {
        "call_id": call,
        "run_id": run,
        "agent_id": agent,
        "parent_run_id": parent_run,
        "team": team,
        "role": role,
    }
    return {
        "gen_ai.agent.id": agent,
        "gen_ai.agent.name": agent,
        "session.id": run,
        "user.id": user,
        "openinference.span.kind": kind,
        "metadata": msgspec.json.encode({k: v for k, v in known.items() if v}).decode(),
        "llm_proxy.call.id": call,
        "llm_proxy.run.id": run,
        "llm_proxy.parent_run.id": parent_run,
        "llm_proxy.agent.id": agent,
        "llm_proxy.agent.team": team,
        "llm_proxy.agent.role": role,
    }


def whose_call(call: CallView, kind: str) -> dict[str, Value]:
    """The same, of a span that is a call's or stands below it."""
    return whose(
        call=call.id,
        run=call.run_id,
        agent=call.agent_id,
        parent_run=call.parent_run_id,
        team=call.team,
        role=call.role,
        user=call.user_id,
        kind=kind,
    )
