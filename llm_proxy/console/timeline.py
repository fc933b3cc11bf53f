"""A run as its page tells it: where each call stands on its time, and what is told apart in a reply."""

from __future__ import annotations

from dataclasses import dataclass

from llm_proxy.admin.shapes import DecisionShown, ReplyShown, RunShown, StepShown

_LEAST = 0.4
"""Percent of the width: a short call is still seen."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A call. `left` and `width` are percents of the run's time; `waited` that to the first event."""

    call: StepShown
    number: int
    left: float
    width: float
    waited: float
    verdicts: dict[tuple[int, int], DecisionShown]
    """By choice and index of the tool call."""
    reply: ReplyShown | None
    """What the agent received."""
    emitted: ReplyShown | None
    """What the model said, where the agent received something else."""
    alike: frozenset[tuple[object, ...]]
    """Parts that stand in both, as `parts` names them."""


def timeline(run: RunShown) -> tuple[Moment, ...]:
    """The calls in order."""
    begin = min((call.started_us for call in run.calls), default=0)
    end = max((call.started_us + _took_us(call) for call in run.calls), default=0)
    whole = max(1, end - begin)
    return tuple([_moment(call, number, begin, whole) for number, call in enumerate(run.calls, 1)])


def _moment(call: StepShown, number: int, begin: int, whole: int) -> Moment:
    left = 100 * (call.started_us - begin) / whole
    width = max(_LEAST, 100 * _took_us(call) / whole)
    first_us = (call.first_event_s or 0.0) * 1e6
    differs = call.released_differs
    return Moment(
        call=call,
        number=number,
        left=round(min(left, 100 - _LEAST), 2),
        width=round(min(width, 100 - left), 2),
        waited=round(min(100 * first_us / whole, width), 2),
        verdicts={(decision.choice, decision.index): decision for decision in call.decisions},
        reply=(call.received if differs else call.reply),
        emitted=call.reply if differs else None,
        alike=parts(call.reply) & parts(call.received) if differs else frozenset(),
    )


def parts(reply: ReplyShown | None) -> frozenset[tuple[object, ...]]:
    """The words and the tool calls of a reply: (choice, text), (choice, tool, arguments)."""
    choices = reply.choices if reply is not None else ()
    words = [(choice.index, choice.text) for choice in choices]
    return frozenset([*words, *((one.index, c.name, c.arguments) for one in choices for c in one.calls)])


def _took_us(call: StepShown) -> int:
    return round((call.total_s or 0.0) * 1e6)
