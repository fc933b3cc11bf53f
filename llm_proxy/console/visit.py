"""One request to the console: who asks, what they may see, and what they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

import structlog
from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy.exc import SQLAlchemyError

from llm_proxy.admin.door import Operator
from llm_proxy.admin.endpoints import MAX_TEXT
from llm_proxy.admin.errors import Conflict, NotFound, Unclear
from llm_proxy.config.choices import Role
from llm_proxy.console.aside import aside
from llm_proxy.console.pages import Pages
from llm_proxy.console.security import HEADERS, from_here
from llm_proxy.console.sessions import Session, Sessions
from llm_proxy.errors import ProxyError

log = structlog.get_logger("llm_proxy.console")

MAX_FORM = 1 << 20
"""A policy that is to be tried may be pasted into one."""
COOKIE = "llm_proxy_session"
SIGN_IN = "/console/signin"
_DIGITS = 18


class Refused(Exception):
    """What a page says in place of what was asked for."""

    def __init__(self, status: int, title: str, text: str) -> None:
        self.status, self.title, self.text = status, title, text
        super().__init__(title)


@dataclass(frozen=True, slots=True)
class Visit:
    """A person's request. `form` is empty for one that only looks."""

    session: Session
    request: Request
    form: dict[str, str]
    _pages: Pages

    @property
    def operator(self) -> Operator:
        return self.session.operator

    def asked(self, name: str, most: int = MAX_TEXT) -> str:
        """A parameter of the address, stripped; empty where it's missing. Raises `Unclear`."""
        return plain(name, self.request.query_params.get(name, "").strip(), most)

    def words(self, name: str) -> str:
        """Words to search for, stripped: the search itself says what it takes."""
        return self.request.query_params.get(name, "").strip()

    def number(self, name: str) -> int | None:
        """A parameter that is a whole number, None where it's missing. Raises `Unclear`."""
        text = self.asked(name)
        if text and not (text.isascii() and text.isdigit() and len(text) <= _DIGITS):
            raise Unclear(f"{name}: that is no place in this listing.")
        return int(text) if text else None

    def named(self, name: str) -> str:
        """A part of the path. Raises `Unclear`."""
        return plain(name, str(self.request.path_params[name]))

    async def page(self, template: str, at: str, **told: Any) -> HTMLResponse:
        """Made in a thread: a long one must not hold up calls."""
        return await aside(lambda: self._pages.show(template, self.session, at=at, **told))

    def word(self, template: str, code: int) -> HTMLResponse:
        """A page of some words, made at once: where all threads are at work too."""
        return self._pages.show(template, self.session, code=code)


Page = Callable[[Visit], Awaitable[Response]]


def plain(name: str, text: str, most: int = MAX_TEXT) -> str:
    """`text`, where `/admin` would take it too. Raises `Unclear`."""
    if len(text) > most:
        raise Unclear(f"{name}: that is over {most} characters.")
    if not text.isprintable():
        raise Unclear(f"{name}: that holds characters that don't print.")
    return text


def address(request: Request) -> str:
    """Path and query, as they were sent."""
    path, query = request.scope["raw_path"].decode("latin-1"), request.url.query
    return f"{path}?{query}" if query else path


def go(address: str) -> Response:
    """On to a page, which is asked for anew (303)."""
    return RedirectResponse(address, 303, HEADERS)


class Guard:
    """Lets a request through to its page: signed in, with a role that it takes, a form from our own page."""

    def __init__(self, sessions: Sessions, pages: Pages) -> None:
        self._sessions = sessions
        self._pages = pages

    async def session(self, request: Request) -> Session | None:
        secret = request.cookies.get(COOKIE, "")
        return await asyncio.to_thread(self._sessions.find, secret) if secret else None

    def guarded(self, page: Page, roles: frozenset[Role]) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that answers with `page` to those who have one of `roles`."""

        async def endpoint(request: Request) -> Response:
            session: Session | None = None
            try:
                session = await self.session(request)
                if session is None:
                    return self._first(request)
                if not session.operator.roles & roles:
                    raise Refused(403, "Not with your role", _lacks(session.operator, roles))
                form = await _form(request, session) if request.method == "POST" else {}
                return await page(Visit(session, request, form, self._pages))
            except Exception as error:  # noqa: BLE001  a person is told, whatever it was
                return self.refusal(error, session)

        return endpoint

    def refusal(self, error: Exception, session: Session | None) -> Response:
        refused = _refusal_of(error)
        return self._pages.show(
            "refused.html", session, code=refused.status, title=refused.title, text=refused.text
        )

    def _first(self, request: Request) -> Response:
        """Signing in comes first. A link from elsewhere brings no cookie: the page is asked for once more."""
        if request.method != "GET":
            raise Refused(401, "You are signed out", "Sign in, and send it again.")
        if request.headers.get("sec-fetch-site") == "cross-site":
            return self._pages.show("again.html", None)
        return go(f"{SIGN_IN}?to={quote(address(request), safe='')}")


async def _form(request: Request, session: Session) -> dict[str, str]:
    """The fields, each once. Raises `Refused` for a form that no page of this session sent."""
    form = await read_form(request)
    if not session.sent(form.pop("token", "")):
        raise Refused(
            403, "Nothing was done", "The form was not sent by a page of this session: load it anew."
        )
    return form


async def read_form(request: Request) -> dict[str, str]:
    """The fields, each once. Raises `Refused` for what is no form, or comes from another site."""
    if not from_here(request):
        raise Refused(403, "Nothing was done", "The form was not sent by a page of this console.")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM:
            raise Refused(413, "Nothing was done", f"The form is over {MAX_FORM} bytes.")
    try:
        if kind != "application/x-www-form-urlencoded":
            raise ValueError
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=32, errors="strict")
        return {name: value for name, [value] in fields.items()}
    except ValueError:
        raise Refused(400, "Nothing was done", "That is not the form of this page.") from None


_TITLES = {
    NotFound: (404, "Not found"),
    Unclear: (400, "That can't be answered"),
    Conflict: (409, "It can't be done now"),
}


def _lacks(operator: Operator, roles: frozenset[Role]) -> str:
    return f"{operator.id} lacks a role that this takes: one of {', '.join(sorted(roles))}."


def _refusal_of(error: Exception) -> Refused:
    match error:
        case Refused():
            return error
        case NotFound() | Unclear() | Conflict():
            return Refused(*_TITLES[type(error)], str(error))
        case ProxyError():
            return Refused(error.status, "It wasn't done", error.message)
        case SQLAlchemyError():
            log.error("the store can't be read", error=type(error).__name__)
            return Refused(503, "The store can't be read", "Try again shortly.")
        case _:
            log.error("a page failed", error=type(error).__name__, exc_info=error)
            return Refused(500, "The page failed", "The proxy's log says why.")
