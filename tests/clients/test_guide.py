"""The examples of docs/agents.md do what they say, as they stand there."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.clients.house import House
from tests.clients.node import installed, missing
from tests.proxy import KEY

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "agents.md").read_text()
EXAMPLES = {
    title: (language, code)
    for title, language, code in re.findall(
        r"^### ([^\n]+)\n\n```(python|js)\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE
    )
}
SAID = dict.fromkeys(EXAMPLES, "Hello there, friend.") | {
    "OpenAI": r"[0-9a-f-]{36} Hello there, friend\.\nHello there, friend\."
}
DIALECTS = {
    "OpenAI": "openai_chat",
    "Anthropic": "anthropic_messages",
    "OpenAI Agents SDK": "openai_responses",
    "LangChain": "openai_responses",
    "litellm": "openai_chat",
    "Vercel AI SDK": "openai_responses",
}


def test_every_client_has_its_example() -> None:
    assert list(EXAMPLES) == list(DIALECTS)
    clients = GUIDE.partition("\n## Receipts\n")[0]
    assert clients.count("```python\n") + clients.count("```js\n") == len(EXAMPLES)


def _needs_node(title: str) -> list[pytest.MarkDecorator]:
    absent = missing() if EXAMPLES[title][0] == "js" else ""
    return [pytest.mark.skipif(bool(absent), reason=absent)] if absent else []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "title", [pytest.param(title, marks=_needs_node(title), id=title) for title in EXAMPLES]
)
async def test_an_example_prints_the_reply(house: House, title: str) -> None:
    language, code = EXAMPLES[title]
    run = re.sub(r"\W", "-", title)
    for old, new in {"http://127.0.0.1:4000": house.origin, "lp-…": KEY, "ticket-4711": run}.items():
        assert old in code
        code = code.replace(old, new)
    command = [sys.executable, "-"]
    folder = None
    if language == "js":
        command, folder = ["node", "--input-type=module"], await asyncio.to_thread(installed)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    async with asyncio.timeout(120):
        out, err = await process.communicate(code.encode())
    assert process.returncode == 0, err.decode()
    assert re.fullmatch(SAID[title], out.decode().strip()), out.decode()
    (call,) = house.calls(run)
    assert (call.status, call.dialect) == ("ok", DIALECTS[title])
