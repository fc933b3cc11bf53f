"""A run as its page tells it: all that happened, on one span of time, and what is told apart in a reply."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from llm_proxy.admin.run_around import ApprovalMoment, Below
from llm_proxy.admin.shapes import ChildRun, DecisionShown, ReplyShown, RunHappening, RunShown, StepShown
from llm_proxy.runs.effects import Effect

_LEAST = 0.4
"""Percent of the width: what is short is still seen."""

About = StepShown | ChildRun | ApprovalMoment | Effect | RunHappening


@dataclass(frozen=True, slots=True)
class Call:
    """A call's reply as it's told, beside what the agent received in its place."""

    number: int
    verdicts: dict[tuple[int, int], DecisionShown]
    """By choice and index of the tool call."""
    reply: ReplyShown | None
    """What the agent received."""
    emitted: ReplyShown | None
    """What the model said, where the agent received something else."""
    alike: frozenset[tuple[object, ...]]
    """Parts that stand in both, as `parts` names them."""


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened. `left`, `width` and `waited` (to a call's first event) are percents of the
    run's time; what takes no time has no width of its own."""

    kind: str
    """call, run, approval, effect or event."""
    at_us: int
    left: float
    width: float
    waited: float
    depth: int
    """Of a run below this one; 0 for all else."""
    about: About
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class _Span:
    begin_us: int
    whole_us: int

    def moment(
        self, kind: str, at_us: int, took_us: int, about: About, *, first_us: float = 0, depth: int = 0
    ) -> Moment:
        left = 100 * (at_us - self.begin_us) / self.whole_us
        width = min(max(_LEAST, 100 * took_us / self.whole_us), 100.0)
        return Moment(
            kind=kind,
            at_us=at_us,
            left=round(max(0.0, min(left, 100 - width)), 2),
            width=round(width, 2),
            waited=round(min(100 * first_us / self.whole_us, width), 2),
            depth=depth,
            about=about,
        )


def timeline(
    run: RunShown, below: Sequence[Below] = (), approvals: Sequence[ApprovalMoment] = (), *, first: int = 1
) -> tuple[Moment, ...]:
    """All of it, in order of time; a run below stands behind the one that began it. `first`: number of the
    first call."""
    span = _span(run, below, approvals)
    found = [*_calls(run, span, first), *_beside(run, approvals, span)]
    runs = [
        span.moment("run", one.run.started_us, one.run.last_us - one.run.started_us, one.run, depth=one.depth)
        for one in below
    ]
    return _merged(sorted(found, key=lambda moment: moment.at_us), runs)


def _span(run: RunShown, below: Sequence[Below], approvals: Sequence[ApprovalMoment]) -> _Span:
    starts = [call.started_us for call in run.calls]
    ends = [call.started_us + _took_us(call) for call in run.calls]
    points = [one.at_us for one in (*approvals, *run.effects, *run.events)]
    starts += [one.run.started_us for one in below]
    ends += [one.run.last_us for one in below]
    begin = min([*starts, *points], default=0)
    return _Span(begin, max(1, max([*ends, *points], default=0) - begin))


def _calls(run: RunShown, span: _Span, first: int) -> Iterator[Moment]:
    for number, call in enumerate(run.calls, first):
        first_us = (call.first_event_s or 0.0) * 1e6
        moment = span.moment("call", call.started_us, _took_us(call), call, first_us=first_us)
        yield replace(moment, call=_call(call, number))


def _call(call: StepShown, number: int) -> Call:
    differs = call.released_differs
    return Call(
        number=number,
        verdicts={(decision.choice, decision.index): decision for decision in call.decisions},
        reply=(call.received if differs else call.reply),
        emitted=call.reply if differs else None,
        alike=parts(call.reply) & parts(call.received) if differs else frozenset(),
    )


def _beside(run: RunShown, approvals: Sequence[ApprovalMoment], span: _Span) -> Iterator[Moment]:
    for one in approvals:
        yield span.moment("approval", one.at_us, 0, one)
    for effect in run.effects:
        yield span.moment("effect", effect.at_us, 0, effect)
    for event in run.events:
        yield span.moment("event", event.at_us, 0, event)


def _merged(found: list[Moment], runs: list[Moment]) -> tuple[Moment, ...]:
    """Runs come as a tree, in order: what a run began stays with it."""
    told: list[Moment] = []
    for run in runs:
        if run.depth == 1:
            while found and found[0].at_us <= run.at_us:
                told.append(found.pop(0))
        told.append(run)
    return (*told, *found)


def parts(reply: ReplyShown | None) -> frozenset[tuple[object, ...]]:
    """The words and the tool calls of a reply: (choice, text), (choice, tool, arguments)."""
    choices = reply.choices if reply is not None else ()
    words = [(choice.index, choice.text) for choice in choices]
    return frozenset([*words, *((one.index, c.name, c.arguments) for one in choices for c in one.calls)])


def _took_us(call: StepShown) -> int:
    return round((call.total_s or 0.0) * 1e6)
