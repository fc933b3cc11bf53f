"""The console and `/admin` of a worker in the test's own process, for what can't be seen from outside."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from llm_proxy.admin.app import admin_app
from llm_proxy.config import load_config
from llm_proxy.console.app import Console
from llm_proxy.worker import Worker
from tests.console.house import ADMIN, PEOPLE, POLICY
from tests.proxy import config

SAME = {"sec-fetch-site": "same-origin"}


@dataclass(frozen=True)
class Inside:
    worker: Worker
    _app: Any

    @asynccontextmanager
    async def browser(self, token: str | None = ADMIN) -> AsyncGenerator[httpx.AsyncClient]:
        """Signed in with `token`, where one is given; it takes nothing up by itself."""
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="http://console") as http:
            if token is not None:
                signed = await http.post("/console/signin", data={"credential": token}, headers=SAME)
                assert signed.status_code == 303
            yield http


@asynccontextmanager
async def inside(folder: Path, **more: Any) -> AsyncGenerator[Inside]:
    people: list[Mapping[str, Any]] = [
        {"id": f"{role.value}@example.com", "roles": [role.value], "token": token}
        for role, token in PEOPLE.items()
    ]
    told = config("http://127.0.0.1:9", server={"admin_token": ADMIN, "drain_s": 1}, operators=people, **more)
    told |= {"store": f"sqlite:///{folder / 'store.db'}", "policy": str(folder / "policy.yaml")}
    (folder / "policy.yaml").write_text(json.dumps(POLICY))
    (folder / "proxy.yaml").write_text(json.dumps(told))
    worker = Worker(load_config(folder / "proxy.yaml", os.environ))
    await worker.start()
    try:
        console, app = Console(worker), admin_app(worker)
        console.add_to(app)
        yield Inside(worker, app)
        await console.close()
    finally:
        await worker.stop()
