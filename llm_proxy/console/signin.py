"""Signing in with an operator's token, and out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog
from fastapi import Request, Response

from llm_proxy.config.credentials import KeyDigest
from llm_proxy.console.pages import Pages
from llm_proxy.console.security import is_secure
from llm_proxy.console.sessions import LASTS_US, Credential, Sessions
from llm_proxy.console.visit import COOKIE, SIGN_IN, Guard, Refused, Visit, go, read_form

log = structlog.get_logger("llm_proxy.console")

HOME = "/console"
_TRIES, _WITHIN_US = 10, 60_000_000


class SignIn:
    """Compares a token with every operator's, each in constant time."""

    def __init__(
        self,
        known: tuple[tuple[KeyDigest, Credential], ...],
        sessions: Sessions,
        pages: Pages,
        guard: Guard,
        now_us: Callable[[], int],
        public_url: str | None,
    ) -> None:
        self._known = known
        self._sessions = sessions
        self._pages = pages
        self._guard = guard
        self._now_us = now_us
        self._public_url = public_url
        self._failed: deque[int] = deque(maxlen=_TRIES)

    async def ask(self, request: Request) -> Response:
        """The page with the form."""
        if not self._known:
            return self._guard.refusal(_nobody(), None)
        to = _inside(request.query_params.get("to", ""))
        return self._pages.show("signin.html", None, to=to, wrong="")

    async def take(self, request: Request) -> Response:
        """The form."""
        try:
            form = await read_form(request)
            if not self._known:
                raise _nobody()
            self._slow_down()
            credential = self._find(form.get("credential", "").strip())
            to = _inside(form.get("to", ""))
            if credential is None:
                self._failed.append(self._now_us())
                log.warning("a token that nobody has was shown at /console")
                wrong = "No operator has this token."
                return self._pages.show("signin.html", None, code=401, to=to, wrong=wrong)
            session = await asyncio.to_thread(self._sessions.begin, credential)
        except Exception as error:  # noqa: BLE001  a person is told, whatever it was
            return self._guard.refusal(error, None)
        log.info("signed in to the console", operator=credential.operator.id)
        answer = go(to)
        self._set(request, answer, session.secret, LASTS_US // 1_000_000)
        return answer

    async def leave(self, visit: Visit) -> Response:
        await asyncio.to_thread(self._sessions.end, visit.session)
        answer = go(SIGN_IN)
        self._set(visit.request, answer, "", 0)
        return answer

    def _find(self, token: str) -> Credential | None:
        found = [credential for digest, credential in self._known if digest.matches(token)]
        return found[0] if found else None

    def _slow_down(self) -> None:
        """After ten wrong tokens within a minute nobody signs in by this worker until some are older."""
        since = self._now_us() - _WITHIN_US
        if len(self._failed) == _TRIES and self._failed[0] > since:
            raise Refused(429, "Too many tries", "Wait a minute, then sign in again.")

    def _set(self, request: Request, answer: Response, secret: str, lasts_s: int) -> None:
        answer.set_cookie(
            COOKIE,
            secret,
            max_age=lasts_s,
            path="/console",
            secure=is_secure(request, self._public_url),
            httponly=True,
            samesite="strict",
        )


def _inside(to: str) -> str:
    """Only a page of the console is gone on to."""
    plain = to.isascii() and to.isprintable() and "\\" not in to
    return to if plain and (to == HOME or to.startswith((HOME + "/", HOME + "?"))) else HOME


def _nobody() -> Refused:
    return Refused(
        403,
        "Nobody may enter here",
        "Set server.admin_token, or an operator's token under operators, in proxy.yaml.",
    )
