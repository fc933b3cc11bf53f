"""Two tries at once, tick by tick: a provider here gives and withholds bytes just when a test says so."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from llm_proxy.chat.reply import ToolCall
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.exchange import Exchange, Spent
from llm_proxy.flow import Flow
from llm_proxy.outgoing import Outgoing
from llm_proxy.output import Verbatim
from llm_proxy.sending.attempt import AnySink, Attempting, Watching
from llm_proxy.sending.lost import LostTry
from llm_proxy.sending.race import Race
from llm_proxy.sending.send import Sender
from llm_proxy.upstream.provider import Endpoint, Sending, UpstreamFailure, UpstreamReply, Upstreams
from llm_proxy.wire.dialect import Denied
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from routing.failures import Charge, FailureKind
from routing.fleet import Fleet
from routing.health import BreakerSettings
from routing.plan import Plan, Try
from routing.targets import Hedge, Route, RouteTable, Target

BROKEN = UpstreamFailure(FailureKind.SERVER_ERROR, "boom", status=500)
REFUSED = ProxyError(Kind.UNSUPPORTED_FEATURE, "can't be said there")


def frame(**choice: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


ROLE, WORD = frame(delta={"role": "assistant"}), frame(delta={"content": "hi"})
END = frame(delta={}, finish_reason="stop") + b"data: [DONE]\n\n"
CALL = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
CALLS = (
    frame(delta={"tool_calls": [CALL]}) + frame(delta={}, finish_reason="tool_calls") + b"data: [DONE]\n\n"
)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  the loop's next tick is what is waited for
            await asyncio.sleep(0)


class _Reply:
    """A stream of what the test puts into `came`."""

    streamed = True
    status = 200
    content_type = "text/event-stream"
    dropped = ()

    def __init__(self, came: asyncio.Queue[bytes | Exception]) -> None:
        self.headers: Mapping[str, str] = {}
        self._came = came

    async def chunk(self) -> bytes:
        piece = await self._came.get()
        if isinstance(piece, Exception):
            raise piece
        return piece


class Stage:
    """A provider of the targets `a`, `b` and `c`: `came[id]` is what each sends, `open` who is at work."""

    def __init__(self) -> None:
        self.came: defaultdict[str, asyncio.Queue[bytes | Exception]] = defaultdict(asyncio.Queue)
        self.open_now: list[str] = []
        self.asked: list[str] = []

    @asynccontextmanager
    async def open(
        self, endpoint: Endpoint, sending: Sending, connect_s: float
    ) -> AsyncGenerator[UpstreamReply]:
        self.asked.append(endpoint.target_id)
        self.open_now.append(endpoint.target_id)
        try:
            yield _Reply(self.came[endpoint.target_id])
        finally:
            self.open_now.remove(endpoint.target_id)

    async def close(self) -> None: ...

    def says(self, target: str, *pieces: bytes | Exception) -> None:
        for piece in pieces:
            self.came[target].put_nowait(piece)

    async def until_asked(self, *targets: str) -> None:
        await until(lambda: self.asked == list(targets))


class Caller:
    """A sink, and how often the reply's tool calls were judged."""

    def __init__(self) -> None:
        self.started = False
        self.got = b""
        self.judged = 0

    async def release(self, data: bytes) -> None:
        self.started = True
        self.got += data

    async def finish(self, tail: bytes) -> None: ...

    async def judge(self, calls: tuple[ToolCall, ...]) -> Denied:
        self.judged += 1
        await asyncio.sleep(0)
        return {}


class House:
    """One call of a hedged route, on a fleet of its own. `refusing`: what can't be said to these targets."""

    def __init__(self, *refusing: str, targets: str = "abc", after_s: float = 0.01, retries: int = 0) -> None:
        self.stage, self.caller, self.fleet = Stage(), Caller(), Fleet()
        body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true}'
        request = OPENAI_CHAT.parse(body)
        self.exchange = Exchange("id", 1, OPENAI_CHAT, time.perf_counter(), body=body, request=request)
        endpoints = {id_: Endpoint(id_, "stage", dialects=("openai_chat",)) for id_ in targets}
        self.upstreams = Upstreams({"stage": self.stage}, endpoints)
        resolved = RouteTable(
            [
                Route(
                    "m",
                    tuple(Target(id_, "stage", "m") for id_ in targets),
                    retries=retries,
                    hedge=Hedge(after_s),
                    breaker=BreakerSettings(threshold=1),
                )
            ]
        ).resolve("m")
        assert resolved is not None
        self.plan = Plan(resolved.chain, self.fleet, now=monotonic(), random=lambda: 0.0)
        self._refusing = refusing
        self.sender = Sender(self.exchange, self.caller, self.plan, self.attempt, _weigh, hedges=True)

    def attempt(self, step: Try, sink: AnySink, watching: Watching) -> Attempting:
        def compose(step: Try, endpoint: Endpoint, absent: object) -> Outgoing:
            if step.target.id in self._refusing:
                raise REFUSED
            return Outgoing(OPENAI_CHAT, Sending("/chat/completions", b"{}", stream=True))

        return Attempting(self.exchange, step, self.upstreams, sink, compose, self._flow, watching)

    def _flow(self, outgoing: Outgoing, sink: AnySink) -> Flow:
        assert self.exchange.request is not None
        return Flow(
            OPENAI_CHAT,
            Verbatim(OPENAI_CHAT),
            sink,  # type: ignore[arg-type]
            self.caller.judge,
            judging=True,
            request=self.exchange.request,
        )

    def told(self) -> list[tuple[str, str]]:
        return [(attempt.target, attempt.failure) for attempt in self.exchange.attempts]

    def counted(self) -> tuple[str, str] | None:
        """The attempt that the call is told of by, and how it ended."""
        noted = self.sender.current.noted if self.sender.current else None
        return (noted.target, noted.failure) if noted else None

    def lost(self) -> list[Charge]:
        return [lost.charge for lost in self.sender.lost]

    def idle(self) -> bool:
        """Whether nothing is open, and nothing counted as in flight."""
        return not self.stage.open_now and not any(
            load.in_flight for load in self.fleet.traffic.loads().values()
        )


async def _weigh(exchange: Exchange, lost: LostTry) -> Spent:
    return Spent()


async def test_the_first_word_decides_and_the_other_ones_word_at_that_moment_is_lost() -> None:
    house = House()
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a", "b")
    house.stage.says("b", ROLE + WORD, END)
    house.stage.says("a", ROLE + WORD, END)
    tail = await sending
    assert house.caller.got + tail == ROLE + WORD + END
    assert house.exchange.target == "b"
    assert house.told() == [("a", "superseded"), ("b", "")]
    assert house.counted() == ("b", "")
    assert house.lost() == [Charge.MAYBE]
    assert house.idle()


async def test_two_that_propose_calls_at_once_are_judged_once() -> None:
    house = House()
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a", "b")
    house.stage.says("a", ROLE + CALLS)
    house.stage.says("b", ROLE + CALLS)
    tail = await sending
    assert house.caller.got + tail == ROLE + CALLS
    assert (house.caller.judged, house.exchange.target) == (1, "a")
    assert house.told() == [("a", ""), ("b", "superseded")]
    assert house.idle()


async def test_one_that_is_started_as_the_other_answers_is_never_sent() -> None:
    house = House()
    first = house.plan.next(monotonic())
    assert isinstance(first, Try)

    def second() -> Try | None:
        house.stage.says("a", ROLE + WORD, END)  # what waits for it runs before what is started now
        return house.plan.hedge(monotonic())

    race = Race(house.caller, house.attempt, second, house.sender)
    await race.run(first, 0.01)
    called_off, answered = race.ends()
    assert (called_off.attempt.step.target.id, called_off.outcome, called_off.attempt.sent) == (
        "b",
        None,
        False,
    )
    assert (answered.attempt.step.target.id, answered.outcome, answered.answered) == ("a", END, True)
    assert house.stage.asked == ["a"]
    assert house.told() == [("a", "")]


async def test_a_second_target_that_cannot_be_told_the_request_is_left_alone() -> None:
    """It was not asked, so it neither ends the call nor counts as well, nor as ill."""
    house = House("b")
    house.fleet.health.hold_open("b", monotonic() - 1)
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a")
    await until(lambda: house.fleet.traffic.load("b").attempts == 1)
    assert house.fleet.health.open_until("b") is not None
    house.stage.says("a", BROKEN)
    await house.stage.until_asked("a", "c")
    house.stage.says("c", ROLE + WORD, END)
    assert await sending == END
    assert house.told() == [("a", "server_error"), ("c", "")]
    assert house.lost() == []
    assert house.fleet.health.available("b", monotonic())
    assert house.idle()


async def test_what_no_target_can_be_told_is_refused() -> None:
    house = House("a", targets="a")
    with pytest.raises(ProxyError, match="can't be said there"):
        await house.sender.send()
    assert house.idle()


async def test_both_fail_and_a_third_answers() -> None:
    house = House()
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a", "b")
    house.stage.says("b", BROKEN)
    await until(lambda: bool(house.exchange.attempts))
    house.stage.says("a", BROKEN)
    await house.stage.until_asked("a", "b", "c")
    house.stage.says("c", ROLE + WORD, END)
    assert await sending == END
    assert house.told() == [("a", "server_error"), ("b", "server_error"), ("c", "")]
    assert house.stage.asked == ["a", "b", "c"], "there is one race in a call"
    assert house.idle()


async def test_a_failure_that_came_before_the_others_first_word_is_charged_all_the_same() -> None:
    house = House()
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a", "b")
    house.stage.says("a", UpstreamFailure(FailureKind.GATEWAY_TIMEOUT, "late", status=504))
    house.stage.says("b", ROLE + WORD)
    await until(lambda: house.caller.started)
    house.stage.says("b", END)
    assert await sending == END
    assert house.told() == [("a", "gateway_timeout"), ("b", "")]
    assert house.lost() == [Charge.MAYBE]


@pytest.mark.parametrize("times", [1, 2])
async def test_a_call_that_is_cancelled_leaves_nothing_open(times: int) -> None:
    house = House()
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a", "b")
    for _ in range(times):
        sending.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert house.told() == [("a", "client_gone"), ("b", "client_gone")]
    assert house.counted() == ("a", "client_gone"), "it is charged as the call's own"
    assert house.lost() == [Charge.MAYBE]
    assert house.idle()
    assert len(asyncio.all_tasks()) == 1


async def test_a_call_that_is_cancelled_behind_a_failure_counts_it() -> None:
    house = House()
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a", "b")
    house.stage.says("a", BROKEN)
    await until(lambda: bool(house.exchange.attempts))
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert house.told() == [("a", "server_error"), ("b", "client_gone")]
    assert not house.fleet.health.available("a", monotonic())
    assert house.lost() == [Charge.MAYBE]
    assert house.idle()


@pytest.mark.parametrize("target", ["a", "b"])
async def test_a_defect_is_raised_as_it_is_and_ends_both(target: str) -> None:
    house = House()
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a", "b")
    house.stage.says(target, ZeroDivisionError("a defect"))
    with pytest.raises(ZeroDivisionError):
        await sending
    assert house.idle()


async def test_the_silence_that_was_waited_out_is_not_the_proxys_own_time() -> None:
    house = House(after_s=0.2)
    sending = asyncio.create_task(house.sender.send())
    await house.stage.until_asked("a", "b")
    house.stage.says("b", ROLE + WORD, END)
    await sending
    # Of 0.2 s: a timer may go off a little early, and something comes before it's set.
    assert house.exchange.upstream_s >= 0.19


@pytest.mark.parametrize(("client_gone", "hedges"), [(True, True), (False, False)])
async def test_nobody_is_asked_for_a_caller_who_left_or_without_money(
    client_gone: bool, hedges: bool
) -> None:
    house = House()
    house.exchange.client_gone = client_gone
    sender = Sender(house.exchange, house.caller, house.plan, house.attempt, _weigh, hedges=hedges)
    sending = asyncio.create_task(sender.send())
    await house.stage.until_asked("a")
    await asyncio.sleep(0.05)
    house.stage.says("a", ROLE + WORD, END)
    assert await sending == END
    assert house.stage.asked == ["a"]
