"""The page to sign in by, signing in with an operator's token, and out."""

from __future__ import annotations

import asyncio

import structlog
from fastapi import Request, Response

from llm_proxy.console.entry import Entry, inside
from llm_proxy.console.oidc import OidcSignIn
from llm_proxy.console.pages import Pages
from llm_proxy.console.people import People
from llm_proxy.console.visit import SIGN_IN, Guard, Refused, Visit, go, read_form

log = structlog.get_logger("llm_proxy.console")


class SignIn:
    """`oidc` is the other way in, where there is one."""

    def __init__(
        self,
        people: People,
        entry: Entry,
        pages: Pages,
        guard: Guard,
        oidc: OidcSignIn | None,
    ) -> None:
        self._people = people
        self._entry = entry
        self._pages = pages
        self._guard = guard
        self._oidc = oidc

    async def ask(self, request: Request) -> Response:
        """The page with the form."""
        if not self._people.have_tokens and self._oidc is None:
            return self._guard.refusal(_nobody(), None)
        return self._page(inside(request.query_params.get("to", "")))

    async def take(self, request: Request) -> Response:
        """The form."""
        try:
            form = await read_form(request)
            if not self._people.have_tokens:
                raise _nobody()
            credential = self._people.by_token(form.get("credential", "").strip())
            to = inside(form.get("to", ""))
            if credential is None:
                log.warning("a token that nobody has was shown at /console")
                return self._page(to, 401, "No operator has this token.")
            session = await asyncio.to_thread(self._entry.sessions.begin, credential)
            answer = go(to)
            await self._entry.give(request, answer, session)
        except Exception as error:  # noqa: BLE001  a person is told, whatever it was
            return self._guard.refusal(error, None)
        log.info("signed in to the console", operator=credential.operator.id, by="token")
        return answer

    async def leave(self, visit: Visit) -> Response:
        await asyncio.to_thread(self._entry.sessions.end, visit.session.secret)
        answer = go(SIGN_IN)
        self._entry.take_back(visit.request, answer)
        return answer

    def _page(self, to: str, code: int = 200, wrong: str = "") -> Response:
        return self._pages.show(
            "signin.html",
            None,
            code=code,
            to=to,
            wrong=wrong,
            by_token=self._people.have_tokens,
            provider=self._oidc and {"name": self._oidc.name, "address": self._oidc.address(to)},
        )


def _nobody() -> Refused:
    return Refused(
        403,
        "Nobody may enter here",
        "Set server.admin_token, an operator's token under operators, or oidc, in proxy.yaml.",
    )
