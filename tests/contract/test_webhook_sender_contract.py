"""Events reach webhooks at least once, over SQLite and a real PostgreSQL, whatever the endpoint does."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator

import pytest
from sqlalchemy import Engine, select

from llm_proxy.admin.webhooks import Outcome, delivery_lines, redeliver
from llm_proxy.config.values import webhook_key
from llm_proxy.reactions import queue as queue_module
from llm_proxy.reactions import sender as sender_module
from llm_proxy.reactions.events import Announcer, Webhook, addressed
from llm_proxy.reactions.queue import Queue
from llm_proxy.reactions.schedule import rest_s
from llm_proxy.reactions.sender import Sender
from llm_proxy.records.evidence import DeliveryRow, Evidence
from llm_proxy.records.ids import now_us
from llm_proxy.records.tables import deliveries
from tests.contract.stored import engine as engine
from tests.contract.stored import url as url
from tests.proxy import until
from tests.stores import outage
from tests.webhook_receiver import CLOSE, HANG, PLAIN, SECRET, Receiver, receiving

pytest_plugins = ["tests.postgres"]

DELAYS = (0.1, 0.1, 0.1)
DAY_US = 86_400 * 1_000_000


class Counts:
    """What metrics are told."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def webhook_tried(self, webhook: str, outcome: str) -> None:
        self.seen[f"{webhook} {outcome}"] += 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender_module, "EVERY_S", 0.05)
    monkeypatch.setattr(sender_module, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(sender_module, "rest_s", lambda failures: 0.05 * failures)


def hook(receiver: Receiver, id_: str = "w") -> Webhook:
    return Webhook(id_, receiver.url, webhook_key(receiver.secret))


@contextlib.asynccontextmanager
async def sending(
    engine: Engine, *webhooks: Webhook, holder: str = "one", counts: Counts | None = None
) -> AsyncGenerator[asyncio.Task[None]]:
    """A sender at work, its pauses short."""
    sender = Sender(engine, holder, webhooks, now_us, lambda: 0.5, counts or Counts(), delays=DELAYS)
    task = asyncio.create_task(sender.run())
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def queue(engine: Engine, count: int, *webhooks: str) -> list[str]:
    """Ids of new events, the oldest first."""
    ids: list[str] = []
    for number in range(count):
        rows = addressed(webhooks or ("w",), "key.issued", {"number": number}, now_us())
        Queue(engine).add(rows)
        ids.append(rows[0].id)
    return ids


def stand(engine: Engine, id_: str, webhook: str = "w") -> tuple[Outcome, int, str]:
    with engine.connect() as connection:
        (line,) = delivery_lines(connection, 2, id_=id_, webhook=webhook)
    return line.status, line.attempts, line.error


def ended(engine: Engine) -> bool:
    with engine.connect() as connection:
        waiting = connection.execute(select(deliveries.c.id).where(deliveries.c.next_us.is_not(None)))
        return waiting.first() is None


@pytest.mark.parametrize("secret", [SECRET, PLAIN])
async def test_events_arrive_signed_and_once(engine: Engine, secret: str) -> None:
    counts = Counts()
    async with receiving(secret) as receiver, sending(engine, hook(receiver), counts=counts):
        ids = queue(engine, 20)
        await until(lambda: ended(engine), "all have ended")
    assert sorted(got.id for got in receiver.tries) == sorted(ids)
    assert {got.body["data"]["number"] for got in receiver.tries} == set(range(20))
    assert {stand(engine, id_) for id_ in ids} == {(Outcome.DELIVERED, 1, "")}
    assert counts.seen == {"w delivered": 20}


@pytest.mark.parametrize("answer", [500, 302, HANG, CLOSE, 429])
async def test_a_failure_is_tried_again_under_the_same_id(engine: Engine, answer: int) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _, n: answer if n == 0 else 204
        async with sending(engine, hook(receiver)):
            (id_,) = queue(engine, 1)
            await until(lambda: ended(engine), "it has ended")
    assert [got.id for got in receiver.tries] == [id_, id_]
    assert {got.path for got in receiver.tries} == {"/hook"}, "a redirect was followed"
    assert stand(engine, id_) == (Outcome.DELIVERED, 2, "")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (500, "HTTP 500"),
        (302, "HTTP 302"),
        (HANG, "no answer within 0.5 s"),
        (CLOSE, "ServerDisconnectedError"),
    ],
)
async def test_it_is_given_up_in_the_end_and_says_why(engine: Engine, answer: int, error: str) -> None:
    counts = Counts()
    async with receiving() as receiver:
        receiver.answer = lambda _, __: answer
        async with sending(engine, hook(receiver), counts=counts):
            (id_,) = queue(engine, 1)
            await until(lambda: ended(engine), "it has ended")
        assert stand(engine, id_) == (Outcome.GIVEN_UP, 1 + len(DELAYS), error)
        assert counts.seen == {"w retried": len(DELAYS), "w given_up": 1}
        receiver.answer = lambda _, __: 200
        (line,) = redeliver(engine, id_, None, now_us())
        assert (line.status, line.attempts) == (Outcome.WAITING, 0)
        async with sending(engine, hook(receiver)):
            await until(lambda: ended(engine), "it has ended again")
    assert stand(engine, id_) == (Outcome.DELIVERED, 1, "")
    assert receiver.taken[0].id == id_


async def test_an_endpoint_that_wants_no_more_is_not_asked_again(engine: Engine) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _, __: 410
        async with sending(engine, hook(receiver)):
            (id_,) = queue(engine, 1)
            await until(lambda: ended(engine), "it has ended")
    assert stand(engine, id_) == (Outcome.GIVEN_UP, 1, "HTTP 410")


async def test_a_dead_endpoint_keeps_no_other_waiting(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender_module, "rest_s", rest_s)
    async with receiving() as dead, receiving(PLAIN) as alive:
        dead.answer = lambda _, __: HANG
        async with sending(engine, hook(dead, "dead"), hook(alive, "alive")):
            queue(engine, 30, "dead")
            ids = queue(engine, 5, "dead", "alive")
            began = time.monotonic()
            await until(lambda: len(alive.taken) == 5, "the other one got its events")
            assert time.monotonic() - began < 2
        assert sorted(got.id for got in alive.taken) == sorted(ids)
        assert len(dead.tries) <= 8, "a dead endpoint is hammered"


async def test_one_that_is_down_gets_everything_once_it_is_up(engine: Engine) -> None:
    async with receiving() as receiver:
        await receiver.close()
        async with sending(engine, hook(receiver)):
            (id_,) = queue(engine, 1)
            await until(lambda: stand(engine, id_)[1] >= 1, "a try failed")
            assert stand(engine, id_)[2] == "ClientConnectorError"
            await receiver.open()
            await until(lambda: ended(engine), "it has ended")
    assert receiver.events() == ["key.issued"]


async def test_one_process_sends_and_the_next_takes_over(engine: Engine) -> None:
    async with receiving() as receiver:
        async with sending(engine, hook(receiver), holder="one"):
            queue(engine, 1)
            await until(lambda: ended(engine), "the first has sent")
            async with sending(engine, hook(receiver), holder="two"):
                queue(engine, 10)
                await until(lambda: ended(engine), "all have ended")
            assert len(receiver.tries) == 11, "two processes sent the same"
        async with sending(engine, hook(receiver), holder="two"):
            queue(engine, 1)
            await until(lambda: ended(engine), "the next has sent")
    assert len(receiver.tries) == 12


async def test_a_process_that_dies_in_mid_delivery_leaves_it_to_the_next(engine: Engine) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda _, n: HANG if n == 0 else 200
        async with sending(engine, hook(receiver)):
            (id_,) = queue(engine, 1)
            await until(lambda: len(receiver.tries) == 1, "it is under way")
        assert stand(engine, id_) == (Outcome.WAITING, 0, "")
        async with sending(engine, hook(receiver), holder="two"):
            await until(lambda: ended(engine), "it has ended")
    assert [got.id for got in receiver.tries] == [id_, id_]


async def test_a_store_that_goes_away_in_mid_delivery_loses_nothing(url: str, engine: Engine) -> None:
    answering = asyncio.Event()
    async with receiving() as receiver:
        receiver.answer = lambda _, __: (answering.set(), 200)[1]
        async with sending(engine, hook(receiver)) as task:
            ids = queue(engine, 1)
            await answering.wait()
            with outage(url, engine):
                await asyncio.sleep(0.5)
                assert not task.done()
            ids += queue(engine, 1)
            await until(lambda: ended(engine), "all have ended")
    assert {got.id for got in receiver.taken} == set(ids)
    assert {stand(engine, id_)[0] for id_ in ids} == {Outcome.DELIVERED}


def test_what_ended_long_ago_is_forgotten_and_strays_are_given_up(engine: Engine) -> None:
    now = now_us()
    rows = [
        DeliveryRow("old", "w", "key.issued", "{}", now - 40 * DAY_US, now),
        DeliveryRow("stray", "gone", "key.issued", "{}", now - 2 * DAY_US, now),
        DeliveryRow("fresh stray", "gone", "key.issued", "{}", now, now),
        DeliveryRow("due", "w", "key.issued", "{}", now - 2 * DAY_US, now),
    ]
    queue_ = Queue(engine)
    queue_.add(rows)
    with engine.begin() as connection:
        old = deliveries.c.id == "old"
        connection.execute(deliveries.update().where(old).values(next_us=None, ended_us=now - 31 * DAY_US))
    assert queue_.tidy(["w"], now) == 1
    with engine.connect() as connection:
        lines = {line.id: line.status for line in delivery_lines(connection, 10)}
    assert lines == {"stray": Outcome.GIVEN_UP, "fresh stray": Outcome.WAITING, "due": Outcome.WAITING}
    assert [due.id for due in queue_.due("w", now, 10)] == ["due"]


async def test_however_much_ended_long_ago_it_is_all_forgotten(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_module, "_AT_A_TIME", 3)
    now = now_us()
    Queue(engine).add([DeliveryRow(str(n), "w", "key.issued", "{}", now, now) for n in range(10)])
    with engine.begin() as connection:
        connection.execute(deliveries.update().values(next_us=None, ended_us=now - 31 * DAY_US))

    def left() -> int:
        with engine.connect() as connection:
            return len(delivery_lines(connection, 20))

    async with sending(engine, Webhook("w", "http://127.0.0.1:9/", b"s")):
        await until(lambda: left() == 0, "all are forgotten")


def test_nobody_is_queued_for_what_nobody_wants() -> None:
    announcer = Announcer([Webhook("w", "http://x", b"s", frozenset({"run.ended"}))])
    assert announcer.deliveries("key.issued", {}, 0) == ()
    assert [row.webhook for row in announcer.deliveries("run.ended", {}, 0)] == ["w"]
    assert Evidence().deliveries == ()
