"""Writes receipts: for a call that was released, as long as one may still be had."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import msgspec

from llm_proxy.receipts.verify import REQUIRED, TYPE
from llm_proxy.records.view import Decision
from llm_proxy.signing import SigningKey
from llm_proxy.signing.key import ALGORITHM, b64

_TOLD_WITHIN_S = 86_400
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Committed:
    """A verdict as it was committed. `digest` names the exact action; `at_us` is when it was judged."""

    agent_id: str
    run_id: str
    call_id: str
    decision: Decision
    digest: str
    at_us: int


class Receipts:
    """Signs for one configuration. Without a key none can be had. Pure, and cheap: some 60 µs each."""

    def __init__(self, key: SigningKey | None, issuer: str, valid_s: int, window_s: int) -> None:
        """`valid_s`: how long a receipt is good; `window_s`: how long after its release a call gets any."""
        self.key = key
        self._issuer = issuer
        self._valid_s = valid_s
        self._window_s = window_s
        self._jwk = None if key is None else jwt.PyJWK(key.jwk())
        self._header = b"" if key is None else _part({"alg": ALGORITHM, "kid": key.id, "typ": TYPE})
        self.key_set: bytes = _encode({"keys": [] if key is None else [key.jwk()]})
        """What `/.well-known/jwks.json` answers."""

    def receipt(self, judged: Committed, now_us: int) -> str | None:
        """None where there is no key, no policy judged the call, or its time is over."""
        decision, now_s = judged.decision, now_us // 1_000_000
        until_s = judged.at_us // 1_000_000 + self._window_s
        if self.key is None or not (decision.policy and judged.digest and decision.released):
            return None
        if now_s >= until_s:
            return None
        claims: dict[str, object] = {
            "iss": self._issuer,
            "sub": judged.agent_id,
            "iat": now_s,
            "exp": min(now_s + self._valid_s, until_s),
            "until": until_s,
            "jti": _jti(judged),
            "run_id": judged.run_id,
            "call_id": judged.call_id,
            "tool": decision.tool,
            "tool_call_id": decision.tool_call_id,
            "args_sha256": decision.received or judged.digest,
            "decision": "allow",
            "rule": decision.rule,
            "effect": decision.effect,
            "policy": decision.policy,
        }
        if decision.approval:
            claims["approval"] = decision.approval
        if decision.shadow:
            claims["shadow"] = True
        signed = b".".join((self._header, _part(claims)))
        return f"{signed.decode()}.{b64(self.key.sign(signed))}"

    def why_not(self, judged: Committed) -> str:
        """Why `receipt` gave none for a call that was released."""
        if self.key is None:
            return "There is no signing key here: an operator sets one as `records.signing_key`."
        if not judged.decision.policy:
            return "No policy judged the call, and a receipt says that one did."
        window = f"{self._window_s} s ago (receipts.window_s)"
        return f"The call was released more than {window}: have it judged anew."

    def read(self, token: str, now_us: int) -> Mapping[str, Any]:
        """The claims of a receipt of ours, for what is told afterwards: one that expired within the last day
        still says which call it was for. Raises ValueError."""
        if self._jwk is None:
            raise ValueError("there is no signing key here")
        try:
            if jwt.get_unverified_header(token).get("typ") != TYPE:
                raise ValueError("it is a token of another type")
            checks: Any = {"require": REQUIRED, "verify_exp": False}
            claims = jwt.decode(
                token, self._jwk, algorithms=[ALGORITHM], issuer=self._issuer, leeway=5, options=checks
            )
        except jwt.PyJWTError as error:
            raise ValueError(str(error)) from None
        if claims["exp"] < now_us // 1_000_000 - _TOLD_WITHIN_S:
            raise ValueError("it expired more than a day ago")
        return claims


def _jti(judged: Committed) -> str:
    """The same for every receipt of one call: a tool that knows it executes no call twice."""
    decision = judged.decision
    names = (judged.agent_id, judged.run_id, judged.call_id, decision.choice, decision.index)
    return hashlib.sha256(_encode(names)).hexdigest()[:32]


def _part(value: object) -> bytes:
    return b64(_encode(value)).encode()
