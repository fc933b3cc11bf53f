"""Makes rows and records into the JSON that operators get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from msgspec.structs import asdict

from llm_proxy.admin.approval_lines import ApprovalLine
from llm_proxy.admin.shapes import (
    AttemptShown,
    CallLine,
    CallOutline,
    CallShown,
    ChildRun,
    ChoiceShown,
    DecisionShown,
    ProblemShown,
    ProviderUseShown,
    RefusalLine,
    ReplyShown,
    ResultShown,
    RunHappening,
    RunLine,
    RunShown,
    StepShown,
    UsageShown,
    WithheldShown,
)
from llm_proxy.admin.story import Step, received_reply
from llm_proxy.archive.listings import CallRow, RefusalRow, RunRow
from llm_proxy.chat.events import Usage
from llm_proxy.chat.reply import Reply
from llm_proxy.records.times import iso
from llm_proxy.records.view import CallView
from llm_proxy.runs.effects import Effect
from llm_proxy.runs.status import Standing

T = TypeVar("T", bound=msgspec.Struct)


def usd(micro: int) -> float:
    """The nearest double, which prints as the exact decimal below some nine billion dollars."""
    return micro / 1_000_000


def maybe_iso(us: int | None) -> str | None:
    return None if us is None else iso(us)


def call_line(row: CallRow) -> CallLine:
    return CallLine(
        **asdict(row),
        started_at=iso(row.started_us),
        ended_at=maybe_iso(row.ended_us),
        cost_usd=usd(row.cost_micro_usd),
    )


def run_line(row: RunRow, stands: Standing) -> RunLine:
    told = asdict(row)
    del told["stored"]
    run = stands.run
    return RunLine(
        **told,
        started_at=iso(row.started_us),
        last_at=iso(row.last_us),
        cost_usd=usd(row.cost_micro_usd),
        purpose=run.purpose,
        trigger=stands.trigger,
        parent_agent_id=run.parent_agent_id,
        status=stands.status,
        why=stands.why,
        envelope=stands.envelope,
        left=stands.left,
        expires_us=stands.expires_us,
        expires_at=maybe_iso(stands.expires_us),
        ended_us=run.ended_us,
        ended_at=maybe_iso(run.ended_us),
    )


def refusal_line(row: RefusalRow) -> RefusalLine:
    return RefusalLine(**asdict(row), at=iso(row.minute_s * 1_000_000))


def call_shown(call: CallView) -> CallShown:
    return CallShown(
        **_outline(call, received_reply(call)), request=_json(call.request), sent=_json(call.sent)
    )


def step_shown(step: Step) -> StepShown:
    return StepShown(**_outline(step.call, step.received), new_messages=step.new)


def run_shown(
    run: RunRow,
    stands: Standing,
    steps: list[Step],
    effects: tuple[Effect, ...] = (),
    *,
    children: tuple[ChildRun, ...] = (),
    more_children: bool = False,
    approvals: tuple[ApprovalLine, ...] = (),
    more_approvals: bool = False,
    events: tuple[RunHappening, ...] = (),
) -> RunShown:
    told = asdict(run_line(run, stands))
    return RunShown(
        call_count=told.pop("calls"),
        calls=tuple(map(step_shown, steps)),
        limits=stands.uses,
        effects=effects,
        children=children,
        more_children=more_children,
        approvals=approvals,
        more_approvals=more_approvals,
        events=events,
        **told,
    )


def pretty(value: object) -> str:
    """`value` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _outline(call: CallView, received: Reply | None) -> Mapping[str, Any]:
    """The keyword arguments of a `CallOutline`."""
    same = set(CallOutline.__struct_fields__) & set(CallView.__struct_fields__)
    return {name: getattr(call, name) for name in same} | {
        "attempts": tuple(_as(AttemptShown, attempt) for attempt in call.attempts),
        "usage": _usage(call.usage),
        "cost_usd": usd(call.cost_micro_usd),
        "started_at": iso(call.started_us),
        "problem": _as(ProblemShown, call.problem) if call.problem else None,
        "decisions": tuple(_as(DecisionShown, decision) for decision in call.decisions),
        "withheld": tuple(_as(WithheldShown, one) for one in call.withheld),
        "provider_tools": tuple(_as(ProviderUseShown, use) for use in call.provider_tools),
        "results": tuple(_as(ResultShown, result) for result in call.results),
        "reasoning_withheld": call.reasoning_withheld,
        "reply": _reply(call.reply),
        "released_differs": received is not None,
        "received": _reply(received),
    }


def _as(kind: type[T], value: msgspec.Struct) -> T:
    """`value` as the subclass of its class that leaves nothing out."""
    return kind(**asdict(value))


def _usage(usage: Usage | None) -> UsageShown | None:
    if usage is None:
        return None
    return UsageShown(
        input_tokens=usage.input,
        output_tokens=usage.output,
        cached_tokens=usage.cached,
        cache_write_tokens=usage.cache_write,
        reasoning_tokens=usage.reasoning,
        total_tokens=usage.total,
    )


def _reply(reply: Reply | None) -> ReplyShown | None:
    if reply is None:
        return None
    return ReplyShown(
        id=reply.id,
        model=reply.model,
        choices=tuple(_as(ChoiceShown, choice) for choice in reply.choices),
        error=reply.error,
        complete=reply.complete,
    )


def _json(body: bytes | None) -> msgspec.Raw | str | None:
    if body is None:
        return None
    try:
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")
    return msgspec.Raw(body)
