"""Where everything of a run stands on its one span of time."""

from __future__ import annotations

from typing import Any

from llm_proxy.admin.run_around import ApprovalMoment, Below
from llm_proxy.console.run_part import Span, begun, of_page
from llm_proxy.console.timeline import Moment, timeline

S = 1_000_000


class _Any:
    """As much of a shape as the timeline looks at."""

    def __init__(self, **told: Any) -> None:
        self.__dict__.update(told)


def _call(at_s: float, took_s: float | None, first_s: float | None = None) -> Any:
    return _Any(
        started_us=round(at_s * S), total_s=took_s, first_event_s=first_s,
        released_differs=False, decisions=(), reply=None, received=None,
    )  # fmt: skip


def _run(*calls: Any, effects: tuple[int, ...] = (), events: tuple[int, ...] = ()) -> Any:
    return _Any(
        calls=calls,
        effects=[_Any(at_us=at * S) for at in effects],
        events=[_Any(at_us=at * S) for at in events],
    )


def _below(depth: int, at_s: int, last_s: int) -> Below:
    run: Any = _Any(started_us=at_s * S, last_us=last_s * S)
    return Below(depth, run)


def _asked(at_s: int, what: str = "asked") -> ApprovalMoment:
    line: Any = None
    return ApprovalMoment(what=what, at_us=at_s * S, approval=line)


def _placed(moments: tuple[Moment, ...]) -> list[tuple[str, float, float]]:
    return [(moment.kind, moment.left, moment.width) for moment in moments]


def test_all_of_it_is_in_order_of_time() -> None:
    run = _run(_call(0, 10, 5), _call(90, 10), effects=(50,), events=(20,))
    found = timeline(run, approvals=[_asked(5)])
    assert _placed(found) == [
        ("call", 0, 10), ("approval", 5, 0.4), ("event", 20, 0.4), ("effect", 50, 0.4), ("call", 90, 10),
    ]  # fmt: skip
    assert found[0].waited == 5
    assert [moment.call.number for moment in found if moment.call] == [1, 2]


def test_what_a_run_below_began_stays_with_it() -> None:
    run = _run(_call(0, 1), _call(40, 1), _call(99, 1))
    below = [_below(1, 10, 50), _below(2, 60, 80), _below(1, 55, 60)]
    found = timeline(run, below)
    assert [(moment.kind, moment.depth, moment.at_us // S) for moment in found] == [
        ("call", 0, 0), ("run", 1, 10), ("run", 2, 60), ("call", 0, 40), ("run", 1, 55), ("call", 0, 99),
    ]  # fmt: skip
    assert found[1].width == 40


def test_nothing_stands_beyond_the_span() -> None:
    found = timeline(_run(_call(5, None), _call(5, 0), effects=(5,)), [_below(1, 5, 5)])
    assert len(found) == 4
    assert all(moment.left >= 0 and moment.left + moment.width <= 100.01 for moment in found)
    late = timeline(_run(_call(0, 100)), [_below(1, 150, 200)])
    assert [(moment.left, moment.width) for moment in late] == [(0, 50), (75, 25)]
    assert timeline(_run()) == ()


def test_a_page_tells_what_happened_at_the_time_of_its_calls() -> None:
    first, middle, last = Span(0, 20 * S), Span(20 * S, 60 * S), Span(60 * S, None)
    for at_s in (0, 19, 20, 59, 60, 10_000):
        assert [at_s * S in span for span in (first, middle, last)].count(True) == 1
    below = [_below(1, 10, 50), _below(2, 60, 80), _below(1, 20, 60), _below(2, 90, 95), _below(1, 70, 70)]
    assert [list(begun(below, span)) for span in (first, middle, last)] == [below[:2], below[2:4], below[4:]]


def test_what_a_call_used_is_told_with_it_however_late() -> None:
    """Its own page alone asks for it: calls overlap."""
    used, later = _asked(30, "used"), _asked(30, "approve")
    assert list(of_page([_asked(5), used, later], Span(0, 20 * S))) == [_asked(5), used]


def test_the_first_call_of_a_page_has_its_number_of_the_run() -> None:
    found = timeline(_run(_call(0, 1), _call(40, 1)), first=101)
    assert [moment.call.number for moment in found if moment.call] == [101, 102]
