"""A recorded run is served again, in three dialects, streamed or whole; where the agent diverges is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
import pytest_asyncio

from llm_proxy.identity.keyring import hash_key
from llm_proxy.replaying.report import Divergence
from llm_proxy.replaying.serve import Replay, Rules
from llm_proxy.replaying.server import listening, serve
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from tests.e2e.dialect_agents import AGENTS, UPSTREAMS, Agent, ChatAgent, Heard, speaking
from tests.e2e.replay_house import POLICY, SCRIPT, Served, recorded, replayed, settings
from tests.proxy import KEY, ProxyProcess, ask, headers, target

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProxyProcess]:
    async with running(parse_script(SCRIPT)) as upstream:
        models = {
            dialect: {"targets": [speaking(dialect, dialect, upstream.origin)], "retries": 0}
            for dialect in UPSTREAMS
        }
        plain = target("plain", upstream.base_url)
        told = settings(upstream.origin, models | {"m": {"targets": [plain], "retries": 0}})
        async with ProxyProcess(tmp_path_factory.mktemp("proxy"), told, policy=POLICY) as started:
            yield started


async def _work(agent: Agent, *, stream: bool, first: str = "do it <tools>") -> list[Heard]:
    """Four calls: two rounds of tools, an answer, and one question more."""
    said = [await agent.say(first, stream=stream)]
    while agent.answers:
        said.append(await agent.answer(stream=stream))
    return [*said, await agent.say("thanks", stream=stream)]


def _agent(kind: type[Agent], at: Any, run: str, upstream: str | None = None) -> Agent:
    return kind(at, upstream or kind.dialect, run=run)


@pytest.mark.parametrize("again", [False, True], ids=["then-whole", "then-streamed"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_a_tool_loop_is_replayed_exactly(
    proxy: ProxyProcess, kind: type[Agent], stream: bool, again: bool
) -> None:
    run = f"{kind.dialect}-{stream}-{again}"
    async with _agent(kind, proxy, run) as agent:
        before = await _work(agent, stream=stream)
        got = agent.tape.bytes
    assert len(before) == 4
    async with replayed(proxy, run) as served, _agent(kind, served, run) as agent:
        after = await _work(agent, stream=again)
        assert agent.tape.headers["x-replay"] == "same", served.told
        assert agent.tape.headers["x-replay-call"] == "4"
        if stream == again:
            assert agent.tape.bytes == got
    assert after == before
    assert served.told == []
    assert (served.report.followed, served.report.replayed, served.report.calls) == (True, 4, 4)


@pytest.mark.parametrize("upstream", UPSTREAMS)
@pytest.mark.parametrize("kind", AGENTS, ids=lambda kind: kind.dialect)
async def test_what_a_policy_edited_is_replayed_as_it_was_received(
    proxy: ProxyProcess, kind: type[Agent], upstream: str
) -> None:
    run = f"denied-{kind.dialect}-{upstream}"
    async with _agent(kind, proxy, run, upstream) as agent:
        before = await _work(agent, stream=True, first="do it <denied>")
    assert "denied by rule 'prohibited'" in before[0].text
    async with replayed(proxy, run) as served, _agent(kind, served, run, upstream) as agent:
        after = await _work(agent, stream=True, first="do it <denied>")
    assert after == before
    assert served.report.followed, served.told


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chatted(proxy: ProxyProcess) -> list[Heard]:
    async with _agent(ChatAgent, proxy, "chatted") as agent:
        return await _work(agent, stream=False)


async def test_a_changed_prompt_is_told_at_its_message(proxy: ProxyProcess, chatted: list[Heard]) -> None:
    async with replayed(proxy, "chatted") as served, _agent(ChatAgent, served, "chatted") as agent:
        heard = await _work(agent, stream=False, first="do it please <tools>")
        assert agent.tape.headers["x-replay"] == "diverged"
    assert heard == chatted, "it goes on by order"
    first = served.told[0]
    assert (first.call, first.message, served.report.diverged) == (1, 1, 4)
    (difference,) = first.differences
    assert difference.path == "messages[0].content"
    assert (difference.recorded, difference.live) == ("do it <tools>", "do it please <tools>")
    assert not served.report.followed


async def test_a_changed_tool_result_is_told_at_its_message(
    proxy: ProxyProcess, chatted: list[Heard]
) -> None:
    async with replayed(proxy, "chatted") as served, _agent(ChatAgent, served, "chatted") as agent:
        await agent.say("do it <tools>", stream=False)
        agent.answers[1]["content"] = "lost"
        await agent.answer(stream=False)
    (told,) = served.told
    assert (told.request, told.call, told.message) == (2, 2, 4)
    assert [(each.path, each.recorded, each.live) for each in told.differences] == [
        ("messages[3].content", "found", "lost")
    ]
    assert [each.call for each in served.report.never_asked] == [3, 4]


async def _ask(served: Served, text: str, **more: Any) -> tuple[int, str, str]:
    """Status, verdict and call of one request of our own."""
    async with aiohttp.ClientSession() as http:
        asked = http.post(f"{served.base_url}/chat/completions", json=ask(text, **more), headers=headers())
        async with asked as reply:
            await reply.read()
            named = reply.headers
            return reply.status, named.get("x-replay", ""), named.get("x-replay-call", "")


async def _recorded(proxy: ProxyProcess, run: str, *texts: str, **more: Any) -> None:
    async with aiohttp.ClientSession() as http:
        for text in texts:
            named = headers(x_run_id=run)
            async with http.post(proxy.url, json=ask(text, **more), headers=named) as reply:
                await reply.read()
    await proxy.settled()


async def test_calls_that_run_at_once_are_matched_by_what_they_ask(proxy: ProxyProcess) -> None:
    texts = [f"question {n}" for n in range(12)]
    await _recorded(proxy, "parallel", *texts)
    async with replayed(proxy, "parallel") as served:
        order = [*reversed(texts[1:]), texts[0]]
        got = await asyncio.gather(*(_ask(served, text) for text in order))
    assert [(status, verdict) for status, verdict, _ in got] == [(200, "same")] * 12
    assert [int(call) for *_, call in got] == [texts.index(text) + 1 for text in order]
    assert served.report.followed


async def test_one_call_more_diverges_alone(proxy: ProxyProcess) -> None:
    await _recorded(proxy, "more", "one", "two", "three")
    async with replayed(proxy, "more", linger_s=60) as served:
        assert await _ask(served, "one") == (200, "same", "1")
        assert await _ask(served, "a new one") == (200, "diverged", "2")
        assert await _ask(served, "two") == (200, "same", "2")
        assert await _ask(served, "three") == (200, "same", "3")
        assert await _ask(served, "three") == (200, "diverged", "3")
        assert await _ask(served, "four") == (409, "diverged", "")
    report = served.report
    assert [(d.request, d.call) for d in report.divergences] == [(2, 2), (5, 3), (6, 0)]
    assert report.divergences[2].why == "the recorded run has no more calls"
    assert (report.followed, report.never_asked) == (False, ())


async def test_fewer_calls_are_told(proxy: ProxyProcess) -> None:
    await _recorded(proxy, "fewer", "one", "two", "three")
    async with replayed(proxy, "fewer") as served:
        assert await _ask(served, "one") == (200, "same", "1")
        assert await _ask(served, "three") == (200, "same", "3")
    assert [each.call for each in served.report.never_asked] == [2]
    assert (served.report.followed, served.report.diverged) == (False, 0)


async def test_strict_ends_at_the_first_divergence(proxy: ProxyProcess, chatted: list[Heard]) -> None:
    async with replayed(proxy, "chatted", strict=True) as served:
        async with _agent(ChatAgent, served, "chatted") as agent:
            with pytest.raises(openai.ConflictError, match="call 1, message 1: asked something else"):
                await agent.say("something else", stream=True)
        await asyncio.sleep(0.5)
        with pytest.raises(aiohttp.ClientConnectionError):
            await _ask(served, "do it <tools>")
    assert served.report.diverged == 1


async def test_failures_and_refusals_come_again(proxy: ProxyProcess) -> None:
    await _recorded(proxy, "failed", "<fails>", "<breaks>", stream=True)
    async with aiohttp.ClientSession() as http:
        refused = ask("which") | {"model": "nobody-has-this"}
        async with http.post(proxy.url, json=refused, headers=headers(x_run_id="failed")) as reply:
            assert reply.status == 404
    await proxy.settled()
    async with replayed(proxy, "failed") as served:
        assert await _ask(served, "<fails>", stream=True) == (400, "same", "1")
        async with openai.AsyncOpenAI(base_url=served.base_url, api_key=KEY, max_retries=0) as sdk:
            with pytest.raises(openai.APIError, match=r"broke off|connection|cut") as caught:
                async for _ in await sdk.chat.completions.create(**ask("<breaks>", stream=True)):
                    pass
            assert not isinstance(caught.value, openai.APIStatusError)
        assert await _ask(served, "which", model="nobody-has-this") == (404, "same", "3")
    assert served.report.followed


async def test_the_sdks_own_retries_are_replayed(proxy: ProxyProcess) -> None:
    async def busy(at: str) -> str:
        named = {"x-run-id": "busy"}
        async with openai.AsyncOpenAI(base_url=at, api_key=KEY, max_retries=3, default_headers=named) as sdk:
            reply = await sdk.chat.completions.create(**ask("<busy>"))
            return reply.choices[0].message.content or ""

    assert await busy(proxy.base_url) == "All done."
    await proxy.settled()
    assert [view.status for view in proxy.views(run="busy")] == ["failed", "failed", "ok"]
    async with replayed(proxy, "busy") as served:
        assert await busy(served.base_url) == "All done."
    assert served.report.followed, served.told


@pytest.mark.soak
async def test_a_slow_last_reply_is_not_cut_by_the_end(proxy: ProxyProcess) -> None:
    await _recorded(proxy, "last", "<slow>", stream=True)
    opened, told = listening("127.0.0.1", 0), list[Divergence]()
    replay = Replay(
        recorded(proxy, "last"),
        Rules(keys=[hash_key(KEY)], speed=0.25, linger_s=0, max_body=1 << 20),
        told.append,
    )
    ready = asyncio.Event()
    serving = asyncio.create_task(serve(replay, opened, ready.set))
    await ready.wait()
    served = Served(f"http://127.0.0.1:{opened.getsockname()[1]}")
    assert await _ask(served, "<slow>", stream=True) == (200, "same", "1")
    assert (await serving).followed


async def test_a_stream_is_paced_as_it_was(proxy: ProxyProcess) -> None:
    await _recorded(proxy, "slow", "<slow>", stream=True)
    for speed, least, most in ((1, 0.6, 3.0), (0, 0, 0.4)):
        async with replayed(proxy, "slow", speed=speed) as served:
            started = time.monotonic()
            assert await _ask(served, "<slow>", stream=True) == (200, "same", "1")
            assert least <= time.monotonic() - started < most


async def test_masked_secrets_are_no_divergence(proxy: ProxyProcess) -> None:
    secret = "use sk-proj-zyxwvutsrqponmlkjihgfedcba9876543210ZYXW <key>"
    await _recorded(proxy, "masked", secret)
    async with replayed(proxy, "masked") as served:
        assert await _ask(served, secret) == (200, "same", "1")
        assert await _ask(served, "use another <key>") == (200, "diverged", "1"), "asked again"
    async with replayed(proxy, "masked") as served:
        assert await _ask(served, "take sk-proj-zyxwvutsrqponmlkjihgfedcba9876543210ZYXW <key>") == (
            200,
            "diverged",
            "1",
        )


async def test_nobody_without_a_key_is_answered(proxy: ProxyProcess, chatted: list[Heard]) -> None:
    async with replayed(proxy, "chatted") as served, aiohttp.ClientSession() as http:
        for key in (None, "sk-other-0123456789abcdef"):
            for path, body in (("/chat/completions", ask("do it <tools>")), ("/messages", {})):
                url = served.base_url + path
                async with http.post(url, json=body, headers=headers(key)) as reply:
                    assert reply.status == 401
            async with http.get(f"{served.base_url}/models", headers=headers(key)) as reply:
                assert reply.status == 401
        async with http.get(f"{served.base_url}/models", headers=headers()) as reply:
            assert [each["id"] for each in (await reply.json())["data"]] == ["openai_chat"]
        async with http.post(f"{served.base_url}/files", headers=headers()) as reply:
            assert reply.status == 404
    assert served.report.requests == 0


async def test_legacy_completions_are_replayed_in_either_form(proxy: ProxyProcess) -> None:
    async def complete(at: str, run: str, *, stream: bool) -> str:
        async with openai.AsyncOpenAI(base_url=at, api_key=KEY, default_headers={"x-run-id": run}) as sdk:
            if not stream:
                return (await sdk.completions.create(model="m", prompt="say it")).choices[0].text
            chunks = await sdk.completions.create(model="m", prompt="say it", stream=True)
            return "".join([chunk.choices[0].text async for chunk in chunks if chunk.choices])

    for stream in (False, True):
        run = f"legacy-{stream}"
        assert await complete(proxy.base_url, run, stream=stream) == "All done."
        await proxy.settled()
        for again in (False, True):
            async with replayed(proxy, run) as served:
                assert await complete(served.base_url, run, stream=again) == "All done."
            assert served.report.followed
