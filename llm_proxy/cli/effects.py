"""Side effects on a timeline: each with the call whose tool call is reported to have caused it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.text import Text

from llm_proxy.admin.story import Step
from llm_proxy.cli.text import line
from llm_proxy.records.evidence import tool_call_key
from llm_proxy.records.view import CallView
from llm_proxy.runs.effects import Effect

Row = tuple[str, Text]


def by_cause(
    steps: Sequence[Step], effects: Iterable[Effect]
) -> tuple[dict[str, list[Effect]], list[Effect]]:
    """The effects by the id of the call that caused each, and those of no call that is shown.

    Ids of tool calls may come again in a run: the last such call before the report is meant.
    """
    caused: dict[str, list[Effect]] = {}
    others: list[Effect] = []
    for effect in effects:
        causes = (step.call for step in reversed(steps) if step.call.started_us <= effect.at_us)
        cause = next((call for call in causes if _released(call, effect.tool_call_id)), None)
        if cause is None:
            others.append(effect)
        else:
            caused.setdefault(cause.id, []).append(effect)
    return caused, others


def effect_rows(call: CallView, effects: Iterable[Effect]) -> Iterator[Row]:
    several = sum(decision.released for decision in call.decisions) > 1
    for effect in effects:
        text = effect_line(effect)
        yield "effect", text.append(f"  by {line(effect.tool)}", "dim") if several and effect.tool else text


def effect_line(effect: Effect) -> Text:
    """What others wrote, in one line without control characters."""
    text = Text.assemble(("→ ", "green"), (line(effect.kind), "bold"))
    for part in (effect.id, effect.url):
        if part:
            text.append(f" {line(part)}")
    return text.append(f" ({line(effect.status)})", "dim") if effect.status else text


def _released(call: CallView, tool_call_id: str) -> bool:
    return bool(tool_call_id) and any(
        decision.released and tool_call_key(decision.tool_call_id) == tool_call_id
        for decision in call.decisions
    )
