"""What a replay came to: which calls were replayed, where the agent diverged, what it never asked for."""

from __future__ import annotations

import msgspec

from llm_proxy.replaying.compare import Difference
from llm_proxy.replaying.matching import Match
from llm_proxy.replaying.recorded import Recorded, Run

MOST_KEPT = 200
"""Divergences that the report holds; `diverged` counts them all."""


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """A live request that asked something else than the record.

    `request` is the how manieth the agent sent. `call` is the recorded call that it was answered with, or
    compared with (0: none was left). `message` is the first one that differs, from 1; 0 where none does.
    """

    request: int
    call: int
    call_id: str
    message: int
    why: str
    differences: tuple[Difference, ...] = ()

    @property
    def place(self) -> str:
        """As `call 3, message 2`."""
        at = f"call {self.call}" if self.call else "a call behind the last"
        return f"{at}, message {self.message}" if self.message else at


class Unasked(msgspec.Struct, frozen=True):
    """A recorded call that the agent never asked for."""

    call: int
    call_id: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    agent_id: str
    followed: bool
    """The agent asked for every call of the run, and for nothing else."""
    calls: int
    """Of the run, as far as they can be replayed."""
    left_out: int
    requests: int
    """What the live agent asked."""
    replayed: int
    """Those that asked what the record did."""
    diverged: int
    divergences: tuple[Divergence, ...]
    """The first MOST_KEPT."""
    never_asked: tuple[Unasked, ...]


class Log:
    """Takes down each request as it is answered."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._requests = self._replayed = self._diverged = 0
        self._kept: list[Divergence] = []

    def answered(self, match: Match | None) -> Divergence | None:
        """The divergence, where the request is one; `match` is None where no call was left for it."""
        self._requests += 1
        found = self._divergence(match)
        if found is None:
            self._replayed += 1
            return None
        self._diverged += 1
        if len(self._kept) < MOST_KEPT:
            self._kept.append(found)
        return found

    @property
    def diverged(self) -> bool:
        return self._diverged > 0

    def report(self, ahead: tuple[int, ...]) -> Report:
        """`ahead`: the places of the calls that were not served."""
        left = [self._run.calls[place] for place in ahead]
        return Report(
            run_id=self._run.run_id,
            agent_id=self._run.agent_id,
            followed=not self._diverged and not left,
            calls=len(self._run.calls),
            left_out=self._run.left_out,
            requests=self._requests,
            replayed=self._replayed,
            diverged=self._diverged,
            divergences=tuple(self._kept),
            never_asked=tuple([Unasked(call.number, call.call.id) for call in left]),
        )

    def _divergence(self, match: Match | None) -> Divergence | None:
        if match is None:
            return self._found(None, "the recorded run has no more calls")
        call = self._run.calls[match.place]
        if match.again:
            return self._found(call, "asked again what was answered before")
        if not match.differences:
            return None
        return self._found(call, "asked something else", match.differences)

    def _found(self, call: Recorded | None, why: str, differences: tuple[Difference, ...] = ()) -> Divergence:
        return Divergence(
            request=self._requests,
            call=call.number if call else 0,
            call_id=call.call.id if call else "",
            message=differences[0].message if differences else 0,
            why=why,
            differences=differences,
        )


def told(divergence: Divergence) -> list[str]:
    """Lines for a person. Recorded and live text stands in them as it is: clean it before a terminal."""
    lines = [f"Request {divergence.request} diverged at {divergence.place}: {divergence.why}."]
    for each in divergence.differences:
        lines += [
            f"  {each.path}",
            f"    recorded: {_side(each.recorded)}",
            f"    live:     {_side(each.live)}",
        ]
    return lines


def summary(report: Report) -> list[str]:
    """The end of the report, line by line."""
    calls = f"{report.replayed} of {report.calls} calls replayed"
    if report.followed:
        return [f"The agent followed run {report.run_id} to its end: {calls}."]
    lines = [f"The agent did not follow run {report.run_id}: {calls}, {report.diverged} diverged."]
    if report.divergences:
        first = report.divergences[0]
        lines.append(f"It first diverged at {first.place}: {first.why}.")
    if report.never_asked:
        numbers = ", ".join(str(each.call) for each in report.never_asked[:_LISTED])
        more = ", …" if len(report.never_asked) > _LISTED else ""
        lines.append(f"It never asked for {len(report.never_asked)} of them: {numbers}{more}.")
    return lines


_LISTED = 20


def _side(text: str | None) -> str:
    return "(nothing)" if text is None else text
