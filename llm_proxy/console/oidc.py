"""Signing in by an OpenID provider: authorization code with PKCE, bound to the browser that began it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from urllib.parse import quote

import structlog
from fastapi import Request, Response

from llm_proxy.config.oidc import OidcConfig
from llm_proxy.console.entry import Entry, inside
from llm_proxy.console.pages import Pages
from llm_proxy.console.pending import LASTS_US, Pending
from llm_proxy.console.people import Credential, People, Unwelcome, needs_more
from llm_proxy.console.sessions import Replayed, Used
from llm_proxy.console.visit import SIGN_IN, Guard, Refused, go
from llm_proxy.identity.fetching import Unreadable
from llm_proxy.identity.id_tokens import Expected, checked_id_token
from llm_proxy.identity.jose import Reason, TokenFault
from llm_proxy.identity.provider import Client, CodeRefused, Provider

log = structlog.get_logger("llm_proxy.console")

BEGIN = f"{SIGN_IN}/oidc"
BACK = f"{BEGIN}/callback"
COOKIE = "llm_proxy_signin"
_LONGEST_CODE = 4096
_MOST_AT_ONCE = 16


class OidcSignIn:
    """One worker's. Nothing is kept of a sign-in that is under way: its cookie holds all."""

    def __init__(
        self,
        wish: OidcConfig,
        people: People,
        entry: Entry,
        pages: Pages,
        guard: Guard,
        now_us: Callable[[], int],
        clock: Callable[[], float],
    ) -> None:
        self._wish = wish
        self._public_url = entry.public_url or ""
        self._people = people
        self._entry = entry
        self._pages = pages
        self._guard = guard
        self._now_us = now_us
        self._provider = Provider(_client(wish, self._public_url), clock)
        self._under_way = 0

    @property
    def name(self) -> str:
        return self._wish.name

    def address(self, to: str) -> str:
        """Where the button leads: to the host that people are sent back to, whose cookie it is."""
        return f"{self._public_url}{BEGIN}?to={quote(to, safe='')}"

    async def begin(self, request: Request) -> Response:
        """On to the provider. A session that stands ends here: the way back brings no cookie of it."""
        pending = Pending.begun(inside(request.query_params.get("to", "")), self._now_us())
        try:
            address = await self._provider.address(pending.state, pending.nonce, pending.challenge)
            await self._entry.end(request)
        except Exception as error:  # noqa: BLE001  a person is told, whatever it was
            return self._guard.refusal(self._told(error), None)
        answer = go(address)
        self._keep(request, answer, pending.cookie, LASTS_US // 1_000_000)
        return answer

    async def come_back(self, request: Request) -> Response:
        """From the provider. A page of ours leads on: what the provider leads to brings no strict cookie."""
        pending = self._pending(request)
        try:
            if pending is None:
                raise Refused(
                    400,
                    "That is no sign-in of this browser",
                    "It was begun elsewhere, more than ten minutes ago, or twice: sign in again.",
                )
            credential = await self._credential(request, pending)
            once = Used(hashlib.sha256(pending.state.encode()).hexdigest(), pending.until_us)
            session = await asyncio.to_thread(self._entry.sessions.begin, credential, once)
            log.info("signed in to the console", operator=credential.operator.id, by="oidc")
            answer = self._pages.show("entered.html", None, to=inside(pending.to))
            await self._entry.give(request, answer, session)
        except Exception as error:  # noqa: BLE001  a person is told, whatever it was
            answer = self._guard.refusal(self._told(error), None)
        if pending is not None:
            self._keep(request, answer, "", 0)
        return answer

    def _pending(self, request: Request) -> Pending | None:
        """The sign-in that this browser began and that `state` names; None where there's none."""
        pending = Pending.read(request.cookies.get(COOKIE, ""), self._now_us())
        states = request.query_params.getlist("state")
        return pending if pending is not None and len(states) == 1 and pending.began(states[0]) else None

    async def _credential(self, request: Request, pending: Pending) -> Credential:
        """Of who has signed in there. Raises `Refused`, and all that `_told` knows."""
        if self._under_way >= _MOST_AT_ONCE:
            raise Refused(503, "Too many sign in at once", "Wait a moment, then sign in again.")
        code = _code(request, self._provider.client.issuer)
        self._under_way += 1
        try:
            return await self._redeemed(code, pending)
        finally:
            self._under_way -= 1

    async def _redeemed(self, code: str, pending: Pending) -> Credential:
        granted = await self._provider.redeem(code, pending.verifier)
        client = self._provider.client
        expected = Expected(client.issuer, client.id, pending.nonce)
        keys = await self._provider.keys()
        claims = checked_id_token(granted.id_token, keys, expected, self._now_us() / 1e6)
        try:
            return self._people.by_claims(claims)
        except Unwelcome:
            if not needs_more(claims, self._wish):
                raise
        more = await self._provider.userinfo(granted.access_token)
        if more and more.get("sub") != claims["sub"]:
            raise TokenFault(Reason.WRONG_CLAIMS, "The provider's userinfo is of another person (sub).")
        return self._people.by_claims(more | dict(claims))

    def _told(self, error: Exception) -> Exception:
        """What a person is told of it."""
        match error:
            case Unreadable():
                return self._down(error)
            case CodeRefused():
                log.warning("the OIDC provider gave nothing for a code", error=error.error)
                text = f"{self._wish.name} gave nothing for this sign-in ({error.error}): sign in again."
                if error.error in ("invalid_client", "unauthorized_client"):
                    text = "The provider doesn't take oidc.client_id and oidc.client_secret: ask an admin."
                return Refused(400, "You were not signed in", text)
            case TokenFault():
                log.warning("an ID token let nobody in", reason=error.reason.value)
                return Refused(401, "You were not signed in", error.message)
            case Replayed():
                log.warning("a sign-in by OIDC was used twice")
                return Refused(400, "You were not signed in", "This sign-in was used before: sign in again.")
            case Unwelcome():
                log.warning("somebody without a role signed in at the OIDC provider")
                return Refused(403, "You have no role here", str(error))
            case _:
                return error

    def _down(self, error: Unreadable) -> Refused:
        log.warning("the OIDC provider can't be asked", why=str(error))
        text = f"{self._wish.name}: the provider {error}. Try again shortly, or sign in with a token."
        return Refused(503, "The provider can't be asked", text)

    def _keep(self, request: Request, answer: Response, value: str, lasts_s: int) -> None:
        self._entry.keep(request, answer, COOKIE, value, lasts_s, path=SIGN_IN, samesite="lax")


def _client(wish: OidcConfig, public_url: str) -> Client:
    if wish.issuer is None or wish.client_id is None:
        raise ValueError("oidc is off")
    secret = None if wish.client_secret is None else wish.client_secret.get_secret_value()
    return Client(wish.issuer, wish.client_id, secret, public_url + BACK, wish.scopes, wish.ca)


def _code(request: Request, issuer: str) -> str:
    """What the provider sent along. Raises `Refused` where that is a refusal, or nothing of use."""
    told = request.query_params
    if told.get("iss", issuer) != issuer:  # RFC 9207
        raise Refused(400, "You were not signed in", "The answer came from another provider than was asked.")
    if "error" in told:
        raise Refused(403, "You were not signed in", "The provider refused, or you did: sign in again.")
    codes = told.getlist("code")
    if len(codes) != 1 or not codes[0].isprintable() or not 0 < len(codes[0]) <= _LONGEST_CODE:
        raise Refused(400, "You were not signed in", "The provider sent no code: sign in again.")
    return codes[0]
