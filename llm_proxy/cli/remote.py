"""Changes made by a running proxy, through its /admin. No HTTP proxy is asked."""

from __future__ import annotations

from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from llm_proxy.admin.agents import AgentStanding, Reason
from llm_proxy.admin.approvals import ApprovalShown, ApprovalWord
from llm_proxy.admin.errors import ErrorBody
from llm_proxy.admin.keys import KeyIssued, KeyRotated, KeyRotation, KeyWish
from llm_proxy.admin.legal_holds import HoldShown, HoldWish
from llm_proxy.admin.reading import KeyLine
from llm_proxy.admin.retention import RetentionDone
from llm_proxy.admin.run_events import RunEventShown, RunEventWish
from llm_proxy.admin.runs import RunEnding
from llm_proxy.admin.shapes import RunLine
from llm_proxy.admin.webhooks import DeliveryLine
from llm_proxy.approving import Word

T = TypeVar("T")

_TIMEOUT_S = 15.0
_LONG_S = 6 * 3_600.0
"""What deletes much takes its time."""


class NotRunning(Exception):
    """Nobody listens at the address."""


class Unreachable(Exception):
    """Something is wrong on the way to the proxy, or what answers is none."""


class RemoteRefusal(Exception):
    """The proxy said no. `status` is that of its answer."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Remote:
    """A proxy's /admin at `url`, with an operator's token."""

    def __init__(self, url: str, token: str) -> None:
        """Raises `Unreachable` for a URL that is none."""
        self._url = url.rstrip("/")
        try:
            parts = urlsplit(self._url)
            self._host, self._port = parts.hostname or "", parts.port
        except ValueError:
            self._host, self._port, parts = "", None, urlsplit("")
        if parts.scheme not in ("http", "https") or not self._host:
            raise Unreachable(f"{url[:200]!r} is no address of a proxy: write http://host:port")
        self._secure, self._prefix = parts.scheme == "https", parts.path
        if not token.isascii() or not token.isprintable():
            raise Unreachable("The token holds characters that no header can carry: check $LLM_PROXY_TOKEN.")
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def find(self) -> None:
        """Raises `NotRunning` where nobody listens, `Unreachable` where what does is no proxy of ours."""
        status, body = self._send("GET", "/health/live", None, {})
        if status != 200 or b'"live"' not in body:
            raise Unreachable(f"What answers at {self._url} is not llm-proxy: name it with --url.")

    def issue(self, wish: KeyWish) -> KeyIssued:
        return self._post("/admin/keys", msgspec.json.encode(wish), KeyIssued)

    def rotate(self, wish: KeyRotation) -> KeyRotated:
        return self._post("/admin/keys/rotate", msgspec.json.encode(wish), KeyRotated)

    def revoke(self, key_id: str) -> KeyLine:
        return self._post(f"/admin/keys/{quote(key_id, safe='')}/revoke", b"", KeyLine)

    def end_run(self, run_id: str, wish: RunEnding) -> RunLine:
        return self._post(f"/admin/runs/{quote(run_id, safe='')}/end", msgspec.json.encode(wish), RunLine)

    def freeze(self, agent_id: str, wish: Reason) -> AgentStanding:
        return self._post(
            f"/admin/agents/{quote(agent_id, safe='')}/freeze", msgspec.json.encode(wish), AgentStanding
        )

    def thaw(self, agent_id: str, wish: Reason) -> AgentStanding:
        return self._post(
            f"/admin/agents/{quote(agent_id, safe='')}/thaw", msgspec.json.encode(wish), AgentStanding
        )

    def redeliver(self, delivery_id: str, webhook: str | None) -> list[DeliveryLine]:
        to = f"?webhook={quote(webhook, safe='')}" if webhook is not None else ""
        path = f"/admin/webhooks/deliveries/{quote(delivery_id, safe='')}/redeliver{to}"
        return self._post(path, b"", list[DeliveryLine])

    def test_webhook(self, webhook: str) -> DeliveryLine:
        return self._post(f"/admin/webhooks/{quote(webhook, safe='')}/test", b"", DeliveryLine)

    def decide(self, approval_id: str, decision: Word, wish: ApprovalWord) -> ApprovalShown:
        path = f"/admin/approvals/{quote(approval_id, safe='')}/{decision}"
        return self._post(path, msgspec.json.encode(wish), ApprovalShown)

    def report_event(self, run_id: str, wish: RunEventWish) -> RunEventShown:
        return self._post(
            f"/admin/runs/{quote(run_id, safe='')}/events", msgspec.json.encode(wish), RunEventShown
        )

    def place_hold(self, run_id: str, wish: HoldWish) -> HoldShown:
        path = f"/admin/runs/{quote(run_id, safe='')}/legal-hold"
        return self._post(path, msgspec.json.encode(wish), HoldShown)

    def release_hold(self, run_id: str, wish: HoldWish) -> HoldShown:
        path = f"/admin/runs/{quote(run_id, safe='')}/legal-hold/release"
        return self._post(path, msgspec.json.encode(wish), HoldShown)

    def run_retention(self) -> RetentionDone:
        return self._post("/admin/retention/run", b"", RetentionDone, _LONG_S)

    def _post(self, path: str, body: bytes, kind: type[T], timeout_s: float = _TIMEOUT_S) -> T:
        status, answer = self._send("POST", path, body, self._headers, timeout_s)
        try:
            if status < 300:
                return msgspec.json.decode(answer, type=kind)
            refusal = msgspec.json.decode(answer, type=ErrorBody).error
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Unreachable(f"{self._url}{path} answered {status}, not in the way of llm-proxy.") from None
        raise RemoteRefusal(status, refusal.message)

    def _send(
        self,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float = _TIMEOUT_S,
    ) -> tuple[int, bytes]:
        kind = HTTPSConnection if self._secure else HTTPConnection
        connection = kind(self._host, self._port, timeout=timeout_s)
        try:
            connection.request(method, self._prefix + path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.read()
        except ConnectionRefusedError:
            raise NotRunning(f"No proxy runs at {self._url}: start it, or correct --url.") from None
        except (OSError, HTTPException) as error:
            raise Unreachable(f"{self._url} can't be reached: {error or type(error).__name__}") from None
        finally:
            connection.close()
