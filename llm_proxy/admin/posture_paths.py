"""`GET /admin/posture`: the report of `llm-proxy posture`, less what only a test agent can tell."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Response

from llm_proxy.admin.changes import Add
from llm_proxy.admin.door import CONTENT_READERS
from llm_proxy.admin.endpoints import Filter, answer
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.posture import MOST_DAYS, report
from llm_proxy.policy.load import PolicyErrors
from llm_proxy.worker import Worker

Days = Annotated[int, Query(ge=1, le=MOST_DAYS)]


def add_posture(worker: Worker, add: Add) -> None:
    def read(days: Days = 30, run: Filter = None, agent: Filter = None) -> Response:
        """Is this deployment ready? Answers from config and records; `run` is put together again."""
        with worker.engine.connect() as connection:
            now = worker.services.now_us()
            try:
                return answer(report(worker.config, connection, now, days=days, run=run, agent=agent))
            except PolicyErrors as errors:
                raise Unclear(f"The policy file can't be used as it is now: {errors.issues[0]}") from errors

    add("GET", "/posture", read, "Posture", CONTENT_READERS)
