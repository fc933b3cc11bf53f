"""Receipts from a real proxy, checked where a tool runs; side effects tied to the calls that caused them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import pytest_asyncio
from sqlalchemy import make_url

from llm_proxy.receipts.verify import ReceiptRefused, verify_receipt
from tests.e2e.actions_house import ISSUER, Actions, actions_house
from tests.e2e.runs_house import ADMIN
from tests.proxy import OTHER_KEY, ask, headers

pytestmark = pytest.mark.asyncio(loop_scope="module")
WINDOW = 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Actions]:
    folder = tmp_path_factory.mktemp("receipts")
    async with actions_house(folder, receipts={"valid_s": 2, "window_s": WINDOW}) as opened:
        yield opened


async def key_set(house: Actions) -> dict[str, Any]:
    return (await house.send("GET", "/.well-known/jwks.json", key=None)).body


async def test_both_workers_publish_one_public_key(house: Actions) -> None:
    answers = [await house.send("GET", "/.well-known/jwks.json", key=None) for _ in range(12)]
    assert len({json.dumps(answer.body) for answer in answers}) == 1
    assert answers[0].headers["cache-control"] == "public, max-age=300"
    (key,) = answers[0].body["keys"]
    assert (key["kty"], key["crv"], key["alg"], "d" in key) == ("OKP", "Ed25519", "EdDSA", False)


async def test_a_tool_checks_the_receipt_of_a_checked_action(house: Actions) -> None:
    got = await house.check("crm_read", {"id": "7"}, "r1", tool_call_id="call_1")
    address = house.proxy.origin + "/.well-known/jwks.json"
    by_address = await asyncio.to_thread(
        verify_receipt, got["receipt"], address, tool="crm_read", arguments={"id": "7"}, issuer=ISSUER
    )
    assert (by_address["sub"], by_address["run_id"], by_address["tool_call_id"]) == ("bot", "r1", "call_1")
    assert (by_address["call_id"], by_address["args_sha256"]) == (got["action_id"], got["digest"])
    with pytest.raises(ReceiptRefused, match="other arguments"):
        verify_receipt(got["receipt"], await key_set(house), tool="crm_read", arguments={"id": "8"})
    again = await house.check("crm_read", {"id": "7"}, "r1", tool_call_id="call_1")
    keys = await key_set(house)
    told = verify_receipt(again["receipt"], keys, tool="crm_read", arguments='{"id":"7"}')
    assert told["jti"] == by_address["jti"], "one call, one receipt's number"


async def test_a_whole_reply_carries_receipts_and_a_streamed_call_can_ask_for_one(house: Actions) -> None:
    raw = await house.call("r2")
    calls = raw.body["choices"][0]["message"]["tool_calls"]
    pairs = [pair.partition("=") for pair in raw.headers["x-receipts"].split(", ")]
    assert [unquote(id_) for id_, _, _ in pairs] == [call["id"] for call in calls]
    keys = await key_set(house)
    for call, (_, _, token) in zip(calls, pairs, strict=True):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        assert verify_receipt(token, keys, tool=name, arguments=arguments)["effect"] in ("read", "write")
    body = json.dumps(ask("hi", stream=True)).encode()
    sent = headers(x_run_id="r3")
    async with house.http.post(house.proxy.url, data=body, headers=sent) as reply:
        assert "x-receipts" not in reply.headers
        text = await reply.text()
    chunks = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    deltas = [d for c in chunks if c["choices"] for d in c["choices"][0]["delta"].get("tool_calls", [])]
    id_ = next(delta["id"] for delta in deltas if delta.get("id"))
    given = await house.send("GET", f"/v1/runs/r3/receipts/{id_}")
    assert given.status == 200, given
    assert (
        verify_receipt(given.body["receipt"], keys, tool="crm_read", arguments={"id": "7"})["run_id"] == "r3"
    )


async def test_who_gets_no_receipt(house: Actions) -> None:
    await house.check("wipe", {}, "r4", tool_call_id="denied")
    await house.check("crm_read", {"id": "1"}, "r4", tool_call_id="fine")
    for id_, key, said in (
        ("denied", None, "No tool call 'denied' was released"),
        ("nothing", None, "No tool call 'nothing' was released"),
        ("fine", OTHER_KEY, "was released to run 'r4'"),
    ):
        answer = await house.send("GET", f"/v1/runs/r4/receipts/{id_}", **({"key": key} if key else {}))
        assert (answer.status, said in answer.said) == (404, True), answer
    run = await house.opened()
    answer = await house.send("GET", "/v1/runs/r4/receipts/fine", key=run["token"])
    assert (answer.status, "may not see it" in answer.said) == (404, True)
    await house.send("POST", "/v1/runs/r4/end", {"why": "done"})
    await asyncio.sleep(1)
    over = await house.send("GET", "/v1/runs/r4/receipts/fine")
    assert (over.status, over.error["code"]) == (403, "run_ended")


async def test_a_receipt_can_be_had_for_a_while(house: Actions) -> None:
    got = await house.check("crm_read", {"id": "1"}, "r5", tool_call_id="old")
    await asyncio.sleep(WINDOW)
    late = await house.send("GET", "/v1/runs/r5/receipts/old")
    assert (late.status, "receipts.window_s" in late.said) == (404, True)
    assert "receipt" not in await house.check("crm_read", {"id": "1"}, "r5", tool_call_id="old")
    keys = await key_set(house)
    with pytest.raises(ReceiptRefused, match="expired"):
        verify_receipt(got["receipt"], keys, tool="crm_read", arguments={"id": "1"}, leeway_s=0)


async def test_an_effect_is_tied_to_the_call_that_caused_it_and_shown(house: Actions) -> None:
    await house.check("crm_read", {"id": "1"}, "e1", tool_call_id="read")
    got = await house.check("note_write", {"text": "hi"}, "e1", tool_call_id="write")
    url = "https://crm.example/notes/9?q=[red]x[/red]"
    told = await house.effect("e1", kind="note", url=url, id="9", tool_call_id="write", status="created")
    assert told.status == 201, told
    assert told.body["effect_id"].startswith("eff_")
    assert (told.body["tool"], told.body["id"]) == ("note_write", "9")
    by_tool = await house.effect("e1", OTHER_KEY, kind="mail", receipt=got["receipt"])
    assert (by_tool.status, by_tool.body["tool_call_id"]) == (201, "write")
    loose = await house.effect("e1", kind="log")
    assert (loose.status, loose.body["tool"]) == (201, "")
    listed = (await house.run("e1"))["effects"]
    assert [(e["kind"], e["url"], e["tool_call_id"]) for e in listed] == [
        ("note", url, "write"),
        ("mail", "", "write"),
        ("log", "", ""),
    ]
    shown = (await house.admin("GET", "/runs/e1")).body
    assert shown["effects"] == listed
    out = await cli(house, "runs", "show", "e1", "--json")
    assert json.loads(out)["effects"] == listed
    lines = (await cli(house, "runs", "show", "e1")).splitlines()
    asked = next(n for n, text in enumerate(lines) if "note_write" in text)
    flat = " ".join(" ".join(lines[asked : asked + 6]).replace("│", "").split())
    assert "✔ allowed" in flat
    assert "effect → note 9 https://crm.example/notes/9?q=[red]x[/red] (created)" in flat
    assert flat.index("note 9") < flat.index("mail")
    assert any("reported" in text and "log" in text for text in lines)


async def test_what_is_no_effect_of_the_run_is_refused(house: Actions) -> None:
    await house.check("wipe", {}, "e2", tool_call_id="denied")
    got = await house.check("crm_read", {"id": "1"}, "e2", tool_call_id="read")
    elsewhere = await house.check("crm_read", {"id": "1"}, "e3", tool_call_id="read")
    run = await house.opened()
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"kind": "x", "tool_call_id": "denied"}, 400, "'denied' was never released to run 'e2'"),
        ({"kind": "x", "tool_call_id": "none"}, 400, "'none' was never released"),
        ({"kind": " "}, 400, "kind must say"),
        ({"url": "https://x"}, 400, "`kind`"),
        ({"kind": "x", "url": "u" * 2_049}, 400, "url must be at most 2,048"),
        ({"kind": "x", "url": "a\u001b[31mb"}, 400, "url must be"),
        ({"kind": "x", "receipt": got["receipt"][:-4]}, 400, "receipt is not good"),
        ({"kind": "x", "receipt": elsewhere["receipt"]}, 400, "of another run"),
        ({"kind": "x", "receipt": got["receipt"], "tool_call_id": "y"}, 400, "another tool call"),
    ]
    for wish, status, said in cases:
        answer = await house.send("POST", "/v1/runs/e2/effects", wish)
        assert (answer.status, said in answer.said) == (status, True), answer
    assert (await house.effect("e2", OTHER_KEY, kind="x")).status == 404
    assert (await house.effect("e2", run["token"], kind="x")).status == 404
    assert (await house.effect("nowhere", kind="x")).status == 404
    assert (await house.effect(run["run_id"], run["token"], kind="x")).status == 201
    assert (await house.run("e2"))["effects"] == []


async def test_effects_that_are_reported_at_once_are_all_kept(house: Actions) -> None:
    run = (await house.opened())["run_id"]
    many = await asyncio.gather(*(house.effect(run, kind=f"k{n}") for n in range(20)))
    assert {answer.status for answer in many} == {201}
    assert {e["kind"] for e in (await house.run(run))["effects"]} == {f"k{n}" for n in range(20)}


async def cli(house: Actions, *words: str) -> str:
    """What the command prints, at 200 columns."""
    database = make_url(house.proxy.store).database
    assert database is not None
    config = Path(database).parent / "proxy.yaml"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "llm_proxy", *words, "--config", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"COLUMNS": "200", "PATH": "/usr/bin:/bin", "LLM_PROXY_TOKEN": ADMIN},
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()
