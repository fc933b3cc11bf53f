"""`/approvals/{id}?token=…`: one person decides one approval, once, by the link that an event carried.

The link is all that counts here: whatever credential comes along means nothing. Looking decides nothing,
since mail scanners follow links; only the form does.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qs

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy import wiring
from llm_proxy.admin import approval_page, approvals
from llm_proxy.admin.approvals import ApprovalShown, ApprovalWord
from llm_proxy.admin.content_read import ContentReads, Seen
from llm_proxy.admin.deciding import Deciding
from llm_proxy.admin.errors import Conflict, NotFound, Unclear
from llm_proxy.approving import Word
from llm_proxy.archive.approvals import LinkView, find_link
from llm_proxy.errors import ProxyError
from llm_proxy.identity.issuing import Via
from llm_proxy.reactions.links import PATH, hashed
from llm_proxy.records.approvals import ApprovalStatus
from llm_proxy.records.content_reads import Place
from llm_proxy.records.policy_rows import ApprovalRow
from llm_proxy.records.runstate import RunKey
from llm_proxy.worker import Worker

log = structlog.get_logger("llm_proxy.admin")

MAX_FORM = 16_384
_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_WORDS: dict[str, Word] = {"approve": "approve", "deny": "deny"}


class _Refused(Exception):
    """What the page says instead."""

    def __init__(self, status: int, title: str, text: str) -> None:
        self.status, self.title, self.text = status, title, text
        super().__init__(title)


@dataclass(frozen=True, slots=True)
class _Opened:
    """What a link that is good leads to."""

    link: LinkView
    approval: ApprovalRow
    shown: ApprovalShown


class ApprovalLinks:
    """Two endpoints beside `/admin`. They answer 404 where the config has no links."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._served = wiring.links(worker.config, worker.engine, worker.services.now_us) is not None
        self._deciding = Deciding(worker)
        self._content = ContentReads(worker)

    def add_to(self, app: FastAPI) -> None:
        path = PATH + "{approval_id}"
        app.add_api_route(path, self.look, methods=["GET"], include_in_schema=False)
        app.add_api_route(path, self.decide, methods=["POST"], include_in_schema=False)

    async def look(self, request: Request, approval_id: str) -> Response:
        """The question. It decides nothing, but that it was shown goes on record."""

        async def answer() -> Response:
            token = _only(request.query_params.getlist("token"))
            opened = await asyncio.to_thread(self._open, approval_id, token)
            shown = opened.shown
            seen = Seen(shown, [shown.call_id], RunKey(shown.agent_id, shown.run_id), approval=shown.id)
            await self._content.note(opened.link.operator, Place.LINK, "approvals show", seen)
            return _html(200, approval_page.question(opened.shown, opened.link.operator, token))

        return await _told(answer)

    async def decide(self, request: Request, approval_id: str) -> Response:
        """The answer, once."""

        async def answer() -> Response:
            form = await _form(request)
            token = _only(form.get("token", []))
            opened = await asyncio.to_thread(self._open, approval_id, token)
            decision = _WORDS.get(_only(form.get("decision", [])))
            if decision is None:
                raise _Refused(
                    400, "Nothing was decided", "Say approve or deny, with the page's own buttons."
                )
            shown = await self._deciding.decide(
                opened.approval,
                decision,
                ApprovalWord(reason=approvals.one_line(_only(form.get("reason", [])))),
                by=opened.link.operator,
                via=Via.LINK,
                link=hashed(token),
            )
            return _html(200, approval_page.notice("Thank you", _outcome(shown, decision)))

        return await _told(answer)

    def _open(self, id_: str, token: str) -> _Opened:
        """What the link leads to. Raises `_Refused` for one that is none, or is not good any more.

        It's looked up by the hash of its secret, so how long that takes tells nothing of the secret.
        """
        if not self._served or not _TOKEN.fullmatch(token):
            raise _none()
        worker, now = self._worker, self._worker.services.now_us()
        with worker.engine.connect() as connection:
            link = find_link(connection, hashed(token))
            if link is None or link.approval_id != id_:
                raise _none()
            return self._opened(connection, link, now)

    def _opened(self, connection: Connection, link: LinkView, now_us: int) -> _Opened:
        config = self._worker.config
        approval = approvals.find(connection, link.approval_id)
        shown = approvals.approval_shown(config, connection, now_us, approval.id)
        if link.used_us is not None or any(vote.operator == link.operator for vote in shown.votes):
            raise _over(f"You have decided already. The approval is {shown.status}.")
        if shown.status is ApprovalStatus.EXPIRED or link.expires_us <= now_us:
            raise _over("The approval has expired; nothing ran. The agent may ask again.")
        if shown.status is not ApprovalStatus.PENDING:
            raise _over(f"Others were faster: the approval is {shown.status}.")
        if not approvals.is_asked(config, link.operator, approval):
            raise _over(f"{link.operator} may not decide this any more.")
        return _Opened(link, approval, shown)


async def _told(answer: Callable[[], Awaitable[Response]]) -> Response:
    """The answer, or a page that says why there is none."""
    try:
        return await answer()
    except _Refused as error:
        refused = error
    except (NotFound, Conflict, Unclear, ProxyError, SQLAlchemyError) as error:
        refused = _refusal_of(error)
    return _html(refused.status, approval_page.notice(refused.title, refused.text))


def _refusal_of(error: Exception) -> _Refused:
    match error:
        case NotFound():
            return _none()
        case Conflict():
            return _over(str(error))
        case Unclear():
            return _undecided(str(error))
        case ProxyError():
            return _undecided(error.message, error.status)
        case _:
            log.error("the store can't be read", error=type(error).__name__)
            return _undecided("The store can't be read just now: try again shortly.", 503)


async def _form(request: Request) -> dict[str, list[str]]:
    """The form's fields. Raises `_Refused` for what is no form of ours."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise _undecided(f"The form is over {MAX_FORM} bytes.", 413)
    try:
        if kind != "application/x-www-form-urlencoded":
            raise ValueError
        return parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=8, errors="strict")
    except ValueError:
        raise _undecided("That is not the form of this page.") from None


def _only(values: list[str]) -> str:
    """The one value of a field; empty where it's missing or stands twice."""
    return values[0] if len(values) == 1 else ""


def _outcome(shown: ApprovalShown, decision: Word) -> str:
    missing = shown.quorum - len(shown.approved_by)
    if decision == "approve" and shown.status is ApprovalStatus.PENDING:
        return f"Your approval is on record. It takes {missing} more before {shown.tool} may run."
    if decision == "approve":
        return f"Approved: {shown.tool} may run, as it was shown to you, until {shown.valid_until}."
    return f"Denied: {shown.tool} will not run."


def _none() -> _Refused:
    return _Refused(404, "No such link", "Copy the whole of it, or use `llm-proxy approvals`.")


def _over(text: str) -> _Refused:
    return _Refused(410, "This link is over", text)


def _undecided(text: str, status: int = 400) -> _Refused:
    return _Refused(status, "Nothing was decided", text)


def _html(status: int, page: str) -> Response:
    return HTMLResponse(page, status, approval_page.HEADERS)
