"""What every way of signing in ends with: a session, its cookie, and a page of the console."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Literal

from fastapi import Request, Response

from llm_proxy.console.security import is_secure
from llm_proxy.console.sessions import LASTS_US, Session, Sessions
from llm_proxy.console.visit import COOKIE

HOME = "/console"
_LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class Entry:
    sessions: Sessions
    public_url: str | None

    async def give(self, request: Request, answer: Response, session: Session) -> None:
        """The cookie of a new session; one that this browser had before is over."""
        await self.end(request)
        self.keep(request, answer, COOKIE, session.secret, LASTS_US // 1_000_000)

    async def end(self, request: Request) -> None:
        """Ends the session that the browser shows, if it shows one."""
        if secret := request.cookies.get(COOKIE):
            await asyncio.to_thread(self.sessions.end, secret)

    def take_back(self, request: Request, answer: Response) -> None:
        self.keep(request, answer, COOKIE, "", 0)

    def keep(
        self,
        request: Request,
        answer: Response,
        name: str,
        value: str,
        lasts_s: int,
        *,
        path: str = HOME,
        samesite: Literal["strict", "lax"] = "strict",
    ) -> None:
        """Sets a cookie that no script reads; one that lasts for 0 s is deleted."""
        answer.set_cookie(
            name,
            value,
            max_age=lasts_s,
            path=path,
            secure=is_secure(request, self.public_url),
            httponly=True,
            samesite=samesite,
        )


def inside(to: str) -> str:
    """Only a page of the console is gone on to."""
    plain = to.isascii() and to.isprintable() and "\\" not in to and len(to) <= _LONGEST
    return to if plain and (to == HOME or to.startswith((HOME + "/", HOME + "?"))) else HOME
