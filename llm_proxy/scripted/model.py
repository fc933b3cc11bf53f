"""A scripted model: a request in, the reply that its script gives out. No I/O.

Which turn answers follows from the request alone, `fail_times` aside, which counts, and what a request to
the Responses API names of earlier responses.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import assert_never

from llm_proxy.scripted.elsewhere import Asked, answer_elsewhere
from llm_proxy.scripted.kept import KeptResponses
from llm_proxy.scripted.messages_request import invalid_signature
from llm_proxy.scripted.reply import Fault as Fault
from llm_proxy.scripted.reply import FaultKind as FaultKind
from llm_proxy.scripted.reply import ScriptedFault as ScriptedFault
from llm_proxy.scripted.reply import ScriptedReply as ScriptedReply
from llm_proxy.scripted.reply import play as play
from llm_proxy.scripted.request import Dialect as Dialect
from llm_proxy.scripted.request import RequestError as RequestError
from llm_proxy.scripted.request import ScriptedRequest as ScriptedRequest
from llm_proxy.scripted.script import ErrorScript, ModelScript, Script, Turn, When
from llm_proxy.scripted.speech import SPEECH
from llm_proxy.scripted.speech import parse_request as parse_request

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
    """All models of one script. Not thread-safe: `fail_times` is counted and responses are kept here."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._answered: Counter[tuple[str | None, int]] = Counter()
        self.kept = KeptResponses()

    @property
    def names(self) -> tuple[str, ...]:
        """The models to list; a script that has only a default lists `scripted`."""
        return tuple(self._script.models) or ("scripted",)

    def reset(self) -> None:
        """Forget what `fail_times` has counted, and every response."""
        self._answered.clear()
        self.kept.clear()

    def answer(self, request: ScriptedRequest) -> ScriptedReply:
        """The first turn that matches, rendered; the dialect's 404 or 400 where there is none."""
        try:
            return self._answer(request)
        except RequestError as error:
            return refuse(error, request.dialect)

    def elsewhere(self, asked: Asked) -> ScriptedReply:
        """The answer to a path that isn't scripted, with the pace and the faults of its model's turn."""
        reply = answer_elsewhere(asked)
        name = asked.field("model") if asked.method == "POST" else ""
        request = ScriptedRequest(model=name)
        found = self._script_of(name) if name else None
        turn = self._choose(*found, request) if found else None
        if turn is None:
            return reply
        if turn.status is not None:
            return render(turn, request)
        paced = _whole(turn, 200, reply.body)
        _, *given = paced.headers
        return replace(paced, headers=(*reply.headers, *given))

    def _answer(self, request: ScriptedRequest) -> ScriptedReply:
        found = self._script_of(request.model)
        if found is None:
            said = f"The model {request.model!r} is not in this script"
            raise RequestError(said, code="model_not_found", status=404)
        name, model = found
        _object(model, request)
        request = self.kept.continued(request)
        # Counting tokens asks for no turn, and uses up none of `fail_times`.
        counting = request.dialect is Dialect.COUNT_TOKENS
        turn = Turn() if counting else self._choose(name, model, request)
        if turn is None:
            raise RequestError(
                f"The script of {request.model!r} has no turn for a request with {request.talk.turn} "
                "assistant messages; add a turn, or one without `when`",
                code="script_no_turn",
            )
        if (
            request.dialect is Dialect.RESPONSES
            and request.store
            and turn.status is None
            and turn.error is None
        ):
            self.kept.keep(turn, request)
        return render(turn, request)

    def _script_of(self, model: str) -> tuple[str | None, ModelScript] | None:
        if model in self._script.models:
            return model, self._script.models[model]
        return None if self._script.default is None else (None, self._script.default)

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


def _object(model: ModelScript, request: ScriptedRequest) -> None:
    """RequestError for what this model refuses of a request that others take."""
    if model.requires_reasoning_content and request.thoughtless is not None:
        raise RequestError(
            f"Missing `reasoning_content` field in the assistant message at message index "
            f"{request.thoughtless}. For more information, please refer to "
            "https://api-docs.deepseek.com/guides/thinking_mode#tool-calls",
            code="invalid_request_error",
        )
    if request.unsigned and all(turn.signature for turn in model.turns):
        raise RequestError(invalid_signature(request.unsigned))


def matches(when: When, request: ScriptedRequest) -> bool:
    """Whether every condition that is given holds."""
    talk = request.talk
    said = talk.last
    contained = (
        (when.last_user_contains, said.get("user", "")),
        (when.last_assistant_contains, said.get("assistant", "")),
        (when.last_tool_contains, said.get("tool", "")),
    )
    equal = (
        (when.turn, talk.turn),
        (when.has_tool_result, talk.has_tool_result),
        (when.stream, request.stream),
        (when.model, request.model),
    )
    return (
        all(wanted is None or wanted == is_ for wanted, is_ in equal)
        and all(wanted is None or wanted in text for wanted, text in contained)
        and (when.tool_answered is None or when.tool_answered in talk.tools_answered)
        and all(request.headers.get(name.lower()) == value for name, value in when.header.items())
    )


def render(turn: Turn, request: ScriptedRequest) -> ScriptedReply:
    """The reply of one turn: an HTTP error, a stream or a whole body, with its pace and fault."""
    speech = SPEECH[request.dialect]
    if turn.status is not None:
        error = turn.error or _typed_by(turn.status, ErrorScript().message)
        reply = _whole(turn, turn.status, speech.error(error, turn.status))
    elif request.stream:
        reply = _stream(turn, speech.frames(turn, request), speech.malformed)
    else:
        reply = _whole(turn, 200, speech.whole(turn, request))
    return replace(reply, headers=reply.headers + speech.headers)


def refuse(error: RequestError, dialect: Dialect = Dialect.CHAT) -> ScriptedReply:
    """An error that no script asked for, in the dialect's shape."""
    speech = SPEECH[dialect]
    told = _typed_by(error.status, error.message, error.code, error.param)
    body = speech.error(told, error.status)
    return ScriptedReply(error.status, stream=False, frames=(body,), headers=(_JSON, *speech.headers))


def _typed_by(status: int, message: str, code: str | None = None, param: str | None = None) -> ErrorScript:
    """An error whose type counts as not given: OpenAI's for the status, and other dialects choose theirs."""
    kind = _TYPES.get(status, "server_error")
    return ErrorScript.model_construct({"message"}, message=message, type=kind, code=code, param=param)


def _stream(turn: Turn, sent: tuple[bytes, ...], malformed: bytes) -> ScriptedReply:
    if turn.malformed_after is not None:
        sent = (*sent[: turn.malformed_after], malformed, *sent[turn.malformed_after :])
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
