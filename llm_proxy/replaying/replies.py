"""A recorded reply as it goes to a live agent: the bytes that were received, or written anew. Pure.

An agent that asks for a stream where the recorded one asked for a whole reply, or the other way round, gets
the same reply in the form that it asks for.
"""

from __future__ import annotations

from dataclasses import dataclass

from llm_proxy.chat.events import Event
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.records.view import CallView, Status
from llm_proxy.replaying.completions import body_of_stream, stream_of_body
from llm_proxy.replaying.recorded import Recorded
from llm_proxy.wire.dialect import About, Dialect
from llm_proxy.wire.dialects import DIALECTS
from llm_proxy.wire.openai_completions import OPENAI_COMPLETIONS
from llm_proxy.wire.replay import events_of
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.sse import SseReader


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent: one body, or the frames of a stream. `first_s` and `total_s` are as they were."""

    frames: tuple[bytes, ...]
    streamed: bool
    breaks: bool = False
    """The recorded agent left, or the proxy died: the connection breaks where the record does."""
    first_s: float = 0.0
    total_s: float = 0.0


def reply_to(recorded: Recorded, dialect: Dialect, request: WireRequest, *, retried: bool) -> Reply:
    """What answers `request`, which is of `dialect`. Raises `ProxyError`: the recorded failure, as it was.

    Also where the reply can't be put into the form that is asked for. `retried`: the recorded agent asked the
    same again, and so this one may.
    """
    call, came = recorded.call, recorded.came
    error = _failure(call, retried=retried)
    if error is not None and (not came or not request.stream):
        raise error
    if not came:
        raise _nothing(recorded)
    was_streamed = call.stream and not came[:64].lstrip().startswith(b"{")
    breaks = call.status in (Status.CLIENT_GONE, Status.INTERRUPTED)
    if was_streamed == request.stream and call.dialect == dialect.name:
        body = came
    elif breaks and was_streamed:
        raise _nothing(recorded)
    else:
        body = _anew(recorded, dialect, request, was_streamed=was_streamed)
    if not request.stream:
        return Reply((body,), streamed=False, total_s=call.total_s or 0.0)
    reader = SseReader()
    frames = [frame.raw for frame in (*reader.feed(body), *reader.close())]
    if error is not None:
        frames.append(dialect.error_frame(error))
    return Reply(
        tuple(frames),
        streamed=True,
        breaks=breaks and was_streamed,
        first_s=call.first_event_s or 0.0,
        total_s=call.total_s or 0.0,
    )


def _failure(call: CallView, *, retried: bool) -> ProxyError | None:
    """What the recorded agent was refused with, or told at the end of what it got."""
    problem = call.problem
    if problem is None or call.status in (Status.OK, Status.CLIENT_GONE):
        return None
    try:
        kind = Kind(problem.kind)
    except ValueError:
        kind = Kind.UPSTREAM_FAILED
    return ProxyError(kind, problem.message, status=problem.status, retryable=retried)


def _nothing(recorded: Recorded) -> ProxyError:
    return ProxyError(
        Kind.UPSTREAM_FAILED,
        f"Call {recorded.number} of the recorded run ended {recorded.call.status.value}: no reply of it is "
        "recorded that could be replayed.",
        retryable=False,
    )


def _anew(recorded: Recorded, dialect: Dialect, request: WireRequest, *, was_streamed: bool) -> bytes:
    """The reply in another form, or another dialect."""
    call = recorded.call
    if dialect is OPENAI_COMPLETIONS and call.dialect == dialect.name:
        return body_of_stream(recorded.came) if was_streamed else stream_of_body(recorded.came)
    source, translation = DIALECTS[call.dialect], dialect.translation
    if translation is None or source.translation is None:
        raise ProxyError(
            Kind.UNSUPPORTED_FEATURE,
            f"Call {recorded.number} was recorded at {source.path}, and can't be replayed at {dialect.path}.",
            status=409,
            retryable=False,
        )
    events: list[Event] = list(events_of(source, recorded.came, streamed=was_streamed))
    about = About(
        call_id=call.id,
        model=call.served_model or call.model,
        created=call.started_us // 1_000_000,
        include_usage=request.include_usage,
        request=request,
    )
    if not request.stream:
        return translation.render_body(events, about)
    renderer = translation.renderer(about)
    return renderer.render(events) + renderer.close()
