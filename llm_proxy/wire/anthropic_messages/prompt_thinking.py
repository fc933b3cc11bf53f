"""Anthropic Messages, what a prompt asks of reasoning in the words that its model takes."""

from __future__ import annotations

import msgspec

from llm_proxy.chat.effort import LEAST_BUDGET, budget_of, effort_of
from llm_proxy.chat.prompt import Choose, Effort, Prompt, Thinking
from llm_proxy.wire.anthropic_messages import prompt_out as out
from llm_proxy.wire.anthropic_messages.prompt_models import Reasons, Takes


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to write. `dropped` names the one wish that can't be met, if any."""

    config: out.ThinkingConfig | None = None
    effort: str = ""
    dropped: str = ""

    @property
    def thinks(self) -> bool:
        return self.config is not None and self.config.type != "disabled"


_OFF = out.ThinkingConfig(type="disabled")


def plan(prompt: Prompt, model: Takes, max_tokens: int, *, lacks_thinking: bool) -> Plan:
    """`lacks_thinking`: the conversation ends in a prefill, or in results whose turn has no signed thinking.

    Anthropic takes no thinking beside a forced tool choice, no budget where that turn doesn't start with
    thinking, and none under 1,024 tokens or over `max_tokens`.
    """
    asked = prompt.thinking
    forced = prompt.tool_choice is not None and prompt.tool_choice.mode in (Choose.REQUIRED, Choose.TOOL)
    if asked is None or asked == Thinking(summary=asked.summary):
        return Plan(config=_OFF if forced and _stoppable(model) else None)
    if asked.enabled is False or asked.effort is Effort.NONE:
        return _off(asked, model)
    match model.reasons:
        case Reasons.NEVER:
            return Plan(dropped="reasoning_effort")
        case Reasons.BY_BUDGET:
            return Plan(dropped="thinking") if forced or lacks_thinking else _by_budget(asked, max_tokens)
        case Reasons.ADAPTIVELY:
            return _adaptively(asked, model, forced=forced)


def _stoppable(model: Takes) -> bool:
    """Whether it thinks unless told not to."""
    return model.unasked and not model.always


def _adaptively(asked: Thinking, model: Takes, *, forced: bool) -> Plan:
    effort = _effort_word(asked, model)
    if forced:
        return Plan(config=_OFF if _stoppable(model) else None, effort=effort, dropped="thinking")
    return Plan(config=out.ThinkingConfig(type="adaptive", display=_display(asked)), effort=effort)


def _by_budget(asked: Thinking, max_tokens: int) -> Plan:
    budget = _budget(asked, max_tokens)
    if budget is None:
        return Plan(dropped="reasoning_effort")
    display = asked.summary if asked.summary == "omitted" else ""
    return Plan(config=out.ThinkingConfig(type="enabled", budget_tokens=budget, display=display))


def _off(asked: Thinking, model: Takes) -> Plan:
    effort = "" if asked.effort in (None, Effort.NONE) else _effort_word(asked, model)
    if model.always:
        return Plan(effort=effort, dropped="thinking" if asked.enabled is False else "reasoning_effort")
    return Plan(config=_OFF if model.unasked else None, effort=effort)


def _effort_word(asked: Thinking, model: Takes) -> str:
    """One of Anthropic's words, the nearest that the model knows; empty where its own default is wanted."""
    effort = asked.effort or (effort_of(asked.budget) if asked.budget else None)
    if effort is None or model.reasons is not Reasons.ADAPTIVELY:
        return ""
    match effort:
        case Effort.MINIMAL:
            return Effort.LOW.value
        case Effort.XHIGH if not model.extra_high:
            return Effort.HIGH.value
        case _:
            return effort.value


def _display(asked: Thinking) -> str:
    """Newer models keep the words of their thinking unless asked for them, and the record wants them."""
    return "omitted" if asked.summary == "omitted" else "summarized"


def _budget(asked: Thinking, max_tokens: int) -> int | None:
    """Tokens under `max_tokens`; one made from an effort leaves a quarter of those for the answer."""
    if max_tokens <= LEAST_BUDGET:
        return None
    if asked.budget is not None:
        return max(LEAST_BUDGET, min(asked.budget, max_tokens - 1))
    wanted = budget_of(asked.effort or Effort.MEDIUM) or LEAST_BUDGET
    return max(LEAST_BUDGET, min(wanted, max_tokens * 3 // 4))
