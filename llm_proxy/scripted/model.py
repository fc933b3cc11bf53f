"""A scripted model: a request in, the reply that its script gives out. No I/O.

Which turn answers follows from the request alone, `fail_times` aside, which counts.
"""

from __future__ import annotations

from collections import Counter
from typing import assert_never

from llm_proxy.scripted.render import error_body, frames, whole, with_malformed
from llm_proxy.scripted.reply import Fault as Fault
from llm_proxy.scripted.reply import FaultKind as FaultKind
from llm_proxy.scripted.reply import ScriptedFault as ScriptedFault
from llm_proxy.scripted.reply import ScriptedReply as ScriptedReply
from llm_proxy.scripted.reply import play as play
from llm_proxy.scripted.request import RequestError as RequestError
from llm_proxy.scripted.request import ScriptedRequest as ScriptedRequest
from llm_proxy.scripted.request import parse_request as parse_request
from llm_proxy.scripted.script import ErrorScript, ModelScript, Script, Turn, When

_JSON = ("content-type", "application/json")
_EVENTS = ("content-type", "text/event-stream; charset=utf-8")
_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}


class ScriptedModel:
    """All models of one script. Not thread-safe: `fail_times` is counted here."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._answered: Counter[tuple[str | None, int]] = Counter()

    @property
    def names(self) -> tuple[str, ...]:
        """The models to list; a script that has only a default lists `scripted`."""
        return tuple(self._script.models) or ("scripted",)

    def reset(self) -> None:
        """Forget what `fail_times` has counted."""
        self._answered.clear()

    def answer(self, request: ScriptedRequest) -> ScriptedReply:
        """The first turn that matches, rendered; an OpenAI-shaped 404 or 400 where there is none."""
        name = request.model if request.model in self._script.models else None
        model = self._script.default if name is None else self._script.models[name]
        if model is None:
            return refuse(404, f"The model {request.model!r} is not in this script", "model_not_found")
        turn = self._choose(name, model, request)
        if turn is None:
            return refuse(
                400,
                f"The script of {request.model!r} has no turn for a request with {request.turn} assistant "
                "messages; add a turn, or one without `when`",
                "script_no_turn",
            )
        return render(turn, request)

    def _choose(self, name: str | None, model: ModelScript, request: ScriptedRequest) -> Turn | None:
        for index, turn in enumerate(model.turns):
            if not matches(turn.when, request):
                continue
            if turn.fail_times is None:
                return turn
            if self._answered[name, index] < turn.fail_times:
                self._answered[name, index] += 1
                return turn
        return None


def matches(when: When, request: ScriptedRequest) -> bool:
    """Whether every condition that is given holds."""
    said = request.last
    contained = (
        (when.last_user_contains, said.get("user", "")),
        (when.last_assistant_contains, said.get("assistant", "")),
        (when.last_tool_contains, said.get("tool", "")),
    )
    equal = (
        (when.turn, request.turn),
        (when.has_tool_result, request.has_tool_result),
        (when.stream, request.stream),
        (when.model, request.model),
    )
    return (
        all(wanted is None or wanted == is_ for wanted, is_ in equal)
        and all(wanted is None or wanted in text for wanted, text in contained)
        and (when.tool_answered is None or when.tool_answered in request.tools_answered)
        and all(request.headers.get(name.lower()) == value for name, value in when.header.items())
    )


def render(turn: Turn, request: ScriptedRequest) -> ScriptedReply:
    """The reply of one turn: an HTTP error, a stream or a whole body, with its pace and fault."""
    if turn.status is not None:
        error = turn.error or ErrorScript(type=_TYPES.get(turn.status, "server_error"))
        return _whole(turn, turn.status, error_body(error))
    if request.stream:
        return _stream(turn, request)
    return _whole(turn, 200, whole(turn, request))


def refuse(status: int, message: str, code: str) -> ScriptedReply:
    """An OpenAI-shaped error that no script asked for."""
    error = ErrorScript(message=message, type=_TYPES.get(status, "server_error"), code=code)
    return ScriptedReply(status, stream=False, frames=(error_body(error),), headers=(_JSON,))


def _stream(turn: Turn, request: ScriptedRequest) -> ScriptedReply:
    sent = frames(turn, request)
    if turn.malformed_after is not None:
        sent = with_malformed(sent, turn.malformed_after)
    fault = _fault(turn)
    if fault is not None and fault.kind is FaultKind.TRUNCATE:
        # A stream announces no length: it is truncated by ending cleanly, with no finish and no end marker.
        sent, fault = sent[: len(sent) // 2], None
    return _reply(turn, 200, sent, fault, stream=True)


def _whole(turn: Turn, status: int, body: bytes) -> ScriptedReply:
    half = len(body) // 2
    fault = _fault(turn)
    if turn.malformed_after is not None:
        return _reply(turn, status, (body[:half],), None, stream=False)
    if fault is None:
        return _reply(turn, status, (body,), None, stream=False)
    at_half = Fault(fault.kind, min(fault.after, 1))
    return _reply(turn, status, (body[:half], body[half:]), at_half, stream=False)


def _fault(turn: Turn) -> Fault | None:
    for kind in FaultKind:
        match kind:
            case FaultKind.CUT:
                after = turn.cut_after
            case FaultKind.STALL:
                after = turn.stall_after
            case FaultKind.TRUNCATE:
                after = 1 if turn.truncate else None
            case _:
                assert_never(kind)
        if after is not None:
            return Fault(kind, after)
    return None


def _reply(
    turn: Turn, status: int, sent: tuple[bytes, ...], fault: Fault | None, *, stream: bool
) -> ScriptedReply:
    headers = [_EVENTS if stream else _JSON, *turn.headers.items()]
    if turn.retry_after is not None:
        after = turn.retry_after
        headers.append(("retry-after", after if isinstance(after, str) else f"{after:g}"))
    return ScriptedReply(status, stream, sent, tuple(headers), turn.latency_s, turn.delta_s, fault)
