"""The Vercel AI SDK on Node: `generateText` and `streamText` with tools, through all of its providers."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.clients.house import ASKED, DIALECTS, FINAL, ORDER, POOR_KEY, THOUGHTS, WRONG_KEY, House
from tests.clients.node import installed, missing
from tests.proxy import KEY

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(bool(missing()), reason=missing()),
]
every_api = pytest.mark.parametrize("api", ["chat", "responses", "messages", "compatible"])
Play = Callable[[list[dict[str, Any]]], Awaitable[list[dict[str, Any]]]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def play(house: House) -> Play:
    """Plays tasks one after the other in one Node process, and gives what came of each."""
    folder = await asyncio.to_thread(installed)

    async def play(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        process = await asyncio.create_subprocess_exec("node", "agent.mjs", cwd=folder, **pipes)
        told = json.dumps({"base_url": house.base_url, "tasks": tasks}).encode()
        async with asyncio.timeout(120):
            out, err = await process.communicate(told)
        assert process.returncode == 0, err.decode()
        return json.loads(out)

    return play


def _task(api: str, model: str, prompt: str = "hi", **more: Any) -> dict[str, Any]:
    run = f"run-{uuid.uuid4().hex}"
    return {"api": api, "model": model, "prompt": prompt, "key": KEY, "run": run, "stream": False} | more


def _caller(api: str) -> str:
    return "chat" if api == "compatible" else api


@every_api
async def test_tools_over_three_steps(house: House, play: Play, api: str) -> None:
    tasks = [
        _task(api, f"m-{upstream}", ORDER, stream=stream, tools=True)
        for upstream, stream in itertools.product(DIALECTS, (False, True))
    ]
    for task, got in zip(tasks, await play(tasks), strict=True):
        where = f"{task['model']}, stream: {task['stream']}: {got}"
        assert "error" not in got, where
        upstream = task["model"].removeprefix("m-")
        proposed = {(name, *given.items()) for name, given in got["asked"]}
        assert (len(got["asked"]), proposed) == (3, {(name, *given.items()) for name, given in ASKED}), where
        assert got["final"] == FINAL, where
        assert got["text"] == ("One moment." + FINAL if task["stream"] else FINAL), where
        assert got["finish"] == ["tool-calls", "tool-calls", "stop"], where
        assert all(tokens > 0 for tokens in got["output_tokens"]), where
        calls = house.calls(task["run"])
        assert got["call_id"] == calls[-1].id, where
        assert [call.status for call in calls] == ["ok"] * 3, where
        assert {call.dialect for call in calls} == {DIALECTS[_caller(api)]}, where
        assert {call.upstream_dialect or call.dialect for call in calls} == {DIALECTS[upstream]}, where
        if (
            api == "messages" or api == upstream == "responses"
        ):  # its Responses provider shows summaries, not raw reasoning
            assert got["reasoning"] == list(THOUGHTS), where


@every_api
async def test_structured_output(play: Play, api: str) -> None:
    tasks = [
        _task(api, f"m-{upstream}", "Which city?", stream=stream, city=True)
        for upstream, stream in itertools.product(DIALECTS, (False, True))
    ]
    for task, got in zip(tasks, await play(tasks), strict=True):
        assert got.get("output") == {"name": "Oslo", "people": 717710}, f"{task['model']}: {got}"


@pytest.mark.parametrize(
    ("api", "rotation"),
    [
        ("chat", ("chat", "responses")),
        ("responses", ("messages", "chat")),
        ("messages", ("responses", "messages")),
        ("compatible", ("chat", "messages")),
    ],
)
async def test_refusals_and_failures_are_api_call_errors(
    play: Play, api: str, rotation: tuple[str, str]
) -> None:
    refusals = [
        (WRONG_KEY, "m-chat", 401, "key"),
        (KEY, "nothing", 404, "nothing"),
        (POOR_KEY, "m-chat", 429, "pence"),
        *((KEY, f"refusing-{upstream}", 400, "The vendor refuses this") for upstream in DIALECTS),
    ]
    for stream, upstream in zip((False, True), rotation, strict=True):
        # Five failures in a row would let a target rest.
        cases = [*refusals, (KEY, f"broken-{upstream}", 502, "500")]
        tasks = [_task(api, model, key=key, stream=stream) for key, model, _, _ in cases]
        for (_, model, status, words), got in zip(cases, await play(tasks), strict=True):
            where = f"{model}, stream: {stream}: {got}"
            assert got.get("is_api_call_error"), where
            assert got["status"] == status, where
            assert words in got["message"], where
            assert (status != 429) or int(got["retry_after"]) > 0, where


@every_api
async def test_a_stream_that_breaks_off_is_no_success(house: House, play: Play, api: str) -> None:
    tasks = [_task(api, f"cut-{upstream}", stream=True) for upstream in DIALECTS]
    for task, got in zip(tasks, await play(tasks), strict=True):
        assert "error" in got, f"{task['model']}: {got}"
        assert "stopped before its end" in got["message"], f"{task['model']}: {got}"
        house.failed(task["run"], 502)
