"""Reasoning effort in words and in tokens: OpenAI asks for the one, Anthropic's budgets are the other."""

from __future__ import annotations

from llm_proxy.chat.prompt import Effort

LEAST_BUDGET = 1_024
"""The smallest `budget_tokens` that Anthropic takes."""

_BUDGETS = {
    Effort.MINIMAL: LEAST_BUDGET,
    Effort.LOW: 2_048,
    Effort.MEDIUM: 8_192,
    Effort.HIGH: 16_384,
    Effort.XHIGH: 32_768,
    Effort.MAX: 65_536,
}


def budget_of(effort: Effort) -> int | None:
    """Thinking tokens for an effort; None for `none`."""
    return _BUDGETS.get(effort)


def effort_of(budget: int) -> Effort:
    """The least effort whose budget is not under `budget`, so that `budget_of` and this are inverse."""
    return next((effort for effort, tokens in _BUDGETS.items() if budget <= tokens), Effort.MAX)
