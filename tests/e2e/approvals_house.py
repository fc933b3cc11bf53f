"""A proxy with people who approve, webhooks that tell them, and approvals as the judge opens them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from typer.testing import CliRunner

from llm_proxy.cli.main import app
from llm_proxy.reactions.events import Announcer, Webhook
from llm_proxy.records import approval_bodies as bodies
from llm_proxy.records.batch import Job, Wrote
from llm_proxy.records.evidence import Draft, Evidence, RecordKind, RunOpen
from llm_proxy.records.ids import now_us, uuid7
from llm_proxy.records.policy_rows import ApprovalRow
from llm_proxy.records.writer import Writer
from tests.proxy import ProxyProcess, config, free_port
from tests.webhook_receiver import PLAIN, SECRET, Receiver, receiving

ADMIN = "an-admin-token-0123456789"
PEOPLE: dict[str, tuple[list[str], list[str]]] = {
    "dana": (["approver"], ["leads"]),
    "erin": (["approver"], ["leads"]),
    "adam": (["admin"], ["leads"]),
    "boss": (["admin"], []),
    "frank": (["approver"], ["others"]),
    "ivan": (["investigator"], ["leads"]),
    "sue": (["spend-reader"], ["leads"]),
}
"""Roles and groups, by name; each one's id is `NAME@example.com`."""
ARGUMENTS = '{"order": "4711", "amount": 120.50}'
_numbers = count()


def id_of(name: str) -> str:
    return f"{name}@example.com"


def token_of(name: str) -> str:
    return ADMIN if name == "admin" else f"{name}-token-0123456789"


def operators() -> list[dict[str, Any]]:
    return [
        {"id": id_of(name), "roles": roles, "groups": groups, "token": token_of(name)}
        for name, (roles, groups) in PEOPLE.items()
    ]


@dataclass
class Answer:
    status: int
    body: Any

    @property
    def code(self) -> str:
        return self.body["error"]["code"]

    @property
    def said(self) -> str:
        return self.body["error"]["message"]


@dataclass
class Page:
    status: int
    text: str
    headers: Mapping[str, str]


@dataclass
class House:
    proxy: ProxyProcess
    http: aiohttp.ClientSession
    plain: Receiver
    linked: Receiver
    folder: Path
    hooks: tuple[Webhook, ...] = field(default=())
    named: dict[str, str] = field(default_factory=dict[str, str])
    """Approvals that were opened beforehand: the sender looks once a second, and they travel together."""

    async def send(self, method: str, path: str, who: str | None, body: Any = None) -> Answer:
        """As `who` of `PEOPLE`, as `admin`, or with a token of its own."""
        shown = token_of(who) if who in PEOPLE or who == "admin" else who
        told = {"authorization": f"Bearer {shown}"} if shown else {}
        data = None if body is None else json.dumps(body)
        async with self.http.request(
            method, f"{self.proxy.origin}/admin{path}", headers=told, data=data
        ) as reply:
            return Answer(reply.status, await reply.json(content_type=None))

    async def show(self, id_: str) -> dict[str, Any]:
        answer = await self.send("GET", f"/approvals/{id_}", "dana")
        assert answer.status == 200, answer
        return answer.body

    async def decide(self, id_: str, who: str | None, word: str = "approve", reason: str = "") -> Answer:
        return await self.send("POST", f"/approvals/{id_}/{word}", who, {"reason": reason})

    async def page(self, url: str, form: Any = None, **more: Any) -> Page:
        """A look at a page behind a link, or with `form` its answer."""
        method = "GET" if form is None else "POST"
        async with self.http.request(method, url, data=form, **more) as reply:
            return Page(reply.status, await reply.text(), reply.headers)

    async def cli(self, *arguments: str, token: str = ADMIN, file: str = "cli.yaml") -> tuple[int, str, str]:
        """Exit status, standard output and standard error of a command."""
        environ = {"NO_COLOR": "1", "COLUMNS": "250", "LLM_PROXY_CONFIG": "", "LLM_PROXY_TOKEN": token}
        command = [*arguments, "--config", str(self.folder / file)]
        result = await asyncio.to_thread(CliRunner().invoke, app, command, env=environ)
        return result.exit_code, result.stdout, result.stderr

    def configure(self, file: str, port: int) -> None:
        """Writes the config for commands that look for the proxy at `port`."""
        told = json.loads((self.folder / "proxy.yaml").read_text())
        told["server"]["port"] = port
        (self.folder / file).write_text(json.dumps(told))

    async def ask(self, arguments: str = ARGUMENTS, *, lasts_s: float = 600, **more: Any) -> str:
        """Opens an approval as the judge does; its id. `more` replaces columns."""
        now = now_us()
        given: dict[str, Any] = {
            "id": f"apr_{uuid7(now).replace('-', '')}",
            "run_id": f"run-{next(_numbers)}",
            "agent_id": "bot",
            "call_id": uuid7(now),
            "tool_call_id": "call_1",
            "user_id": "carl@example.com",
            "tool": "refund_create",
            "effect": "write",
            "risk": "high",
            "arguments": arguments,
            "digest": "d" * 64,
            "schema_hash": "e" * 64,
            "policy": "f" * 64,
            "rule": "tier:human-approval",
            "why": "refunds are looked at",
            "approval": "money",
            "approvers": '["group:leads"]',
            "quorum": 1,
            "uses": 1,
            "valid_us": 300_000_000,
            "requested_us": now,
            "expires_us": now + int(lasts_s * 1e6),
            "status": "pending",
            "uses_left": 0,
            "changed_us": now,
        } | more
        row = ApprovalRow(**given)
        told = {name: given[name] for name in bodies.Requested.__struct_fields__ if name in given}
        told |= {"owner": "finance", "policy_id": "p", "policy_version": "1"}
        told |= {"approvers": tuple(json.loads(row.approvers))}
        body = bodies.Requested(**told)
        draft = Draft(
            RecordKind.APPROVAL_REQUESTED, now, row.call_id, row.run_id, row.agent_id, bodies.encode(body)
        )
        run = RunOpen(row.agent_id, row.run_id, "", "", row.user_id, "", False, now)
        await self.write(Evidence(records=(draft,), approvals=(row,), runs=(run,)))
        return row.id

    async def write(self, evidence: Evidence) -> None:
        writer = Writer(self.proxy.engine, uuid7(now_us()), now_us, announce=Announcer(self.hooks))
        await writer.start()
        try:
            await writer.submit(Job(lambda _: Wrote(None, evidence)))
        finally:
            await writer.stop()


@asynccontextmanager
async def approvals_house(
    folder: Path, policy: Mapping[str, Any] | None = None, **more: Any
) -> AsyncGenerator[House]:
    """One webhook gets no content and no links, the other both."""
    async with receiving() as plain, receiving(PLAIN) as linked:
        public = f"http://127.0.0.1:{free_port()}/public"
        events = ["approval.requested", "approval.decided"]
        settings = (
            config(
                "http://127.0.0.1:9/v1",
                operators=operators(),
                webhooks=[
                    {"id": "plain", "url": plain.url, "secret": SECRET, "events": events},
                    {
                        "id": "linked",
                        "url": linked.url,
                        "secret": PLAIN,
                        "events": events,
                        "content": True,
                        "links_for": [id_of(name) for name in ("dana", "erin", "frank", "ivan")],
                    },
                ],
            )
            | more
        )
        settings["server"] = {"admin_token": ADMIN, "drain_s": 1, "public_url": public}
        hooks = tuple(
            Webhook(w["id"], w["url"], b"", frozenset(events), content=w.get("content", False))
            for w in settings["webhooks"]
        )
        async with (
            ProxyProcess(folder, settings, policy=policy) as proxy,
            aiohttp.ClientSession() as http,
        ):
            house = House(proxy, http, plain, linked, folder, hooks)
            house.configure("cli.yaml", proxy.port)
            yield house


def served(proxy: ProxyProcess, url: str) -> str:
    """A public link, at the address at which the proxy itself listens."""
    parts = urlsplit(url)
    assert parts.path.startswith("/public/approvals/apr_")
    return f"{proxy.origin}{parts.path.removeprefix('/public')}?{parts.query}"
