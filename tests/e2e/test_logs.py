"""The log: JSON lines with ids, one for each call at its end, and never content or a secret."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from llm_proxy import logs
from llm_proxy.scripted.script import parse_script
from llm_proxy.scripted.server import running
from llm_proxy.telemetry.ids import run_trace_id
from llm_proxy.telemetry.items import RunRef
from tests.proxy import KEY, ProxyProcess, config, headers, target, until

MARK = "zq7marker"
SCRIPT = f"""
default:
  turns:
    - {{when: {{last_user_contains: fail}}, status: 400}}
    - {{when: {{last_user_contains: break}}, text: one two {MARK} four, cut_after: 3, delta_s: 0.01}}
    - when: {{last_user_contains: tool}}
      reasoning: I think {MARK}.
      tool_calls: [{{name: read, arguments: {{path: {MARK}}}}}, {{name: pay, arguments: {{to: {MARK}}}}}]
    - {{text: Hello {MARK}}}
"""
POLICY = {
    "policy": {"id": "p", "version": 1},
    "tools": {
        "read": {"effect": "read", "tier": "autonomous", "result": {}, "args": {"type": "object"}},
        "pay": {"effect": "write", "tier": "prohibited"},
    },
}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def _bodies() -> list[bytes]:
    def ask(text: str, **more: Any) -> bytes:
        said = [{"role": "system", "content": MARK}, {"role": "user", "content": f"{text} {MARK}"}]
        return json.dumps({"model": "m", "messages": said, "user": f"{MARK}-user", **more}).encode()

    return [
        ask("hi"),
        ask("hi", stream=True),
        ask("use a tool"),
        ask("use a tool", stream=True),
        ask("fail"),
        ask("break", stream=True),
        ask("hi", tools=MARK),
        f'{{"model": "{MARK}", "messages": []}}'.encode(),
        f'{{"{MARK}"'.encode(),
        f"\xff{MARK}".encode("latin-1"),
    ]


async def test_the_log_has_a_line_for_each_call_and_holds_nothing_that_was_said(tmp_path: Path) -> None:
    async with running(parse_script(SCRIPT)) as upstream:
        settings = config(
            upstream.base_url,
            models={"m": {"targets": [target("up", upstream.base_url)], "retries": 0}},
            agents={"bot": {"keys": [KEY], "models": ["*"]}},
            log={"level": "debug"},
        )
        async with ProxyProcess(tmp_path, settings, policy=POLICY, workers=2) as proxy:
            async with aiohttp.ClientSession() as http:

                async def call(number: int, body: bytes, key: str = KEY) -> None:
                    head = headers(key, x_run_id=f"run-{number}", x_tags=MARK)
                    head |= {"traceparent": TRACEPARENT} if number == 0 else {}
                    async with http.post(proxy.url, data=body, headers=head) as reply:
                        try:
                            await reply.read()
                        except aiohttp.ClientPayloadError:
                            assert reply.status == 200, "only a stream is cut"

                await asyncio.gather(*(call(n, body) for n, body in enumerate(_bodies())))
                await call(99, _bodies()[0], f"sk-{MARK}-wrong")
                async with http.get(f"{proxy.origin}/admin/agents?token={MARK}") as reply:
                    assert reply.status == 403
                async with http.get(f"{proxy.origin}/{MARK}?key={MARK}") as reply:
                    assert reply.status == 404
            await proxy.settled()
            views = proxy.views()
            await until(lambda: len(_ended(proxy)) == len(views), "each call has its line")
            told = {line["call_id"]: line for line in _ended(proxy)}
            for view in views:
                line = told[view.id]
                assert (line["run_id"], line["agent_id"]) == (view.run_id, "bot")
                assert line["status"] == view.status.value
                assert line.get("error", "") == (view.problem.kind if view.problem else "")
                assert line.get("denied", 0) == sum(not d.released for d in view.decisions)
                ours = run_trace_id(RunRef("bot", view.run_id)).hex()
                assert line["trace_id"] == (TRACEPARENT.split("-")[1] if view.run_id == "run-0" else ours)
        log = proxy.log()
    assert MARK not in log
    assert KEY not in log
    assert "sk-upstream" not in log
    lines = log.splitlines()
    odd = [line for line in lines if not line.startswith("{") and "/proxy.yaml:" not in line]
    assert odd == [], "every process writes JSON lines"


def _ended(proxy: ProxyProcess) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in proxy.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == "call ended"]


@pytest.fixture
def set_up(capsys: pytest.CaptureFixture[str]) -> Any:
    """The log's handlers as they were, afterwards."""
    root, server = logging.getLogger(), logging.getLogger("uvicorn.error")
    before = (root.handlers, root.level, server.level, list(server.filters))
    yield logs.set_up_logs
    structlog.reset_defaults()
    root.handlers, server.filters[:] = before[0], before[3]
    root.setLevel(before[1])
    server.setLevel(before[2])


def test_an_exception_is_told_by_type_and_place_and_the_call_at_hand_by_its_ids(
    set_up: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up("info")
    token = logs.about.set(lambda: {"call_id": "c1", "run_id": "", "agent_id": "bot"})
    try:
        try:
            try:
                raise ValueError(f"row: {MARK}")
            except ValueError as cause:
                raise RuntimeError(MARK) from cause
        except RuntimeError as error:
            logging.getLogger("somewhere").error("it failed", exc_info=error)
        logging.getLogger("somewhere").debug("not at this level")
    finally:
        logs.about.reset(token)
    said = capsys.readouterr().err
    assert MARK not in said
    (line,) = [json.loads(line) for line in said.splitlines()]
    assert (line["event"], line["level"], line["exception"]) == ("it failed", "error", "RuntimeError")
    assert (line["call_id"], line["agent_id"]) == ("c1", "bot")
    assert "run_id" not in line
    assert [place for place in line["at"] if " " not in place] == ["ValueError", "RuntimeError"]
    assert any(__file__ in place for place in line["at"])
