"""`/console/policy`: the registry, what each rule did over time, and what another policy would have said."""

from __future__ import annotations

from typing import Any

from fastapi import Response

from llm_proxy.admin import policy, policy_shown
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.door import CONTENT_READERS, READERS
from llm_proxy.admin.errors import Unclear
from llm_proxy.admin.policy_reads import MAX_POLICY, MAX_SECONDS, PolicyReads
from llm_proxy.admin.policy_tools import tool_lines
from llm_proxy.console import plots
from llm_proxy.console.reads import Add, Store
from llm_proxy.console.visit import Refused, Visit, plain
from llm_proxy.policy.compiled import Policy
from llm_proxy.policy.load import PolicyErrors
from llm_proxy.records.content_reads import Place
from llm_proxy.worker import Worker

PATH = "/console/policy"
_SINCE = "7d"
_CHANGES = 100


class PolicyPages:
    def __init__(self, worker: Worker) -> None:
        self._store = Store(worker)
        self._reads = PolicyReads(worker)
        self._content = ContentReads(worker)

    def add_to(self, add: Add) -> None:
        add("GET", PATH, self.show, READERS)
        add("GET", PATH + "/simulate", self.ask, CONTENT_READERS)
        add("POST", PATH + "/simulate", self.simulate, CONTENT_READERS)

    async def show(self, visit: Visit) -> Response:
        found = self._reads.in_force()
        if found is None:
            return await visit.page("policy_none.html", PATH)
        may_try, since = bool(visit.operator.roles & CONTENT_READERS), visit.asked("since") or _SINCE
        told = await self._store.within(lambda: self._told(found, since))
        return await visit.page(
            "policy.html", PATH, since=since, tools=tool_lines(found), may_try=may_try, **told
        )

    async def ask(self, visit: Visit) -> Response:
        return await visit.page("simulate.html", PATH, found=None, asked=_asked({}), problems=())

    async def simulate(self, visit: Visit) -> Response:
        """Stops after a minute, and says so; one at a time in each process."""
        asked = _asked(visit.form)
        text = asked["policy"].encode()
        if len(text) > MAX_POLICY:
            raise Refused(413, "It wasn't tried", f"The policy is over {MAX_POLICY} bytes.")
        wish = _wish(asked)
        try:
            found = await self._store.within(lambda: self._reads.simulated(text, wish))
        except PolicyErrors as errors:
            problems = [str(issue) for issue in errors.issues]
            return await visit.page("simulate.html", PATH, found=None, asked=asked, problems=problems)
        calls = list(dict.fromkeys([change.call_id for change in found.changes]))
        await self._content.note(visit.operator.id, Place.CONSOLE, "policy simulate", Seen(None, calls))
        return await visit.page("simulate.html", PATH, found=found, asked=asked, problems=())

    def _told(self, found: Policy, since: str) -> dict[str, Any]:
        shown = self._reads.shown(found, since)
        return {"policy": shown, "plot": _plot(shown)}


def _wish(asked: dict[str, str]) -> policy.SimulationWish:
    """Raises `Unclear`."""
    return policy.SimulationWish(
        since=plain("since", asked["since"]) or None,
        agent=plain("agent", asked["agent"]) or None,
        run=plain("run", asked["run"]) or None,
        limit=_CHANGES,
        seconds=MAX_SECONDS,
    )


def _asked(form: dict[str, str]) -> dict[str, str]:
    asked = {name: form.get(name, "").strip() for name in ("since", "agent", "run")}
    return asked | {"since": asked["since"] or _SINCE, "policy": form.get("policy", "").replace("\r\n", "\n")}


def _plot(shown: policy_shown.PolicyShown) -> str:
    """Hits of each rule by day; empty where there are none, or too many days."""
    spans = [(rule.rule, span) for rule in shown.rules for span in rule.over_time]
    if not spans:
        return ""
    try:
        days = plots.days_between(shown.since_us, shown.until_us)
    except (OverflowError, ValueError):
        raise Unclear("since: that is too long ago.") from None
    if not days:
        return ""
    values = [
        (plots.days_between(span.from_us, span.from_us + 1)[0], rule, span.hits) for rule, span in spans
    ]
    return plots.stacked(days, values, "hits")
