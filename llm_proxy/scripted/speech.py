"""The scripted vendor's dialects: for each, how a request is read and how replies and errors are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from llm_proxy.scripted import (
    chat,
    chat_request,
    messages,
    messages_request,
    plain,
    responses,
    responses_request,
    responses_stream,
)
from llm_proxy.scripted.request import Dialect, ScriptedRequest
from llm_proxy.scripted.script import ErrorScript, Turn


@dataclass(frozen=True, slots=True)
class Speech:
    """`error` takes the HTTP status too; `malformed` is an event that isn't JSON."""

    read: Callable[[bytes, Mapping[str, str]], ScriptedRequest]
    whole: Callable[[Turn, ScriptedRequest], bytes]
    frames: Callable[[Turn, ScriptedRequest], tuple[bytes, ...]]
    error: Callable[[ErrorScript, int], bytes]
    malformed: bytes
    headers: tuple[tuple[str, str], ...] = ()


_MESSAGES = Speech(
    messages_request.read_messages,
    messages.whole,
    messages.frames,
    messages.error_body,
    messages.MALFORMED,
    (("request-id", messages.REQUEST_ID),),
)
SPEECH: Mapping[Dialect, Speech] = {
    Dialect.CHAT: Speech(chat_request.read_chat, chat.whole, chat.frames, chat.error_body, chat.MALFORMED),
    Dialect.COMPLETIONS: Speech(
        plain.read_completion, plain.completion, plain.completion_frames, chat.error_body, plain.MALFORMED
    ),
    Dialect.EMBEDDINGS: Speech(
        plain.read_embedding, plain.embeddings, plain.no_frames, chat.error_body, plain.MALFORMED
    ),
    Dialect.RESPONSES: Speech(
        responses_request.read_responses,
        responses.whole,
        responses_stream.frames,
        chat.error_body,
        responses_stream.MALFORMED,
    ),
    Dialect.MESSAGES: _MESSAGES,
    Dialect.COUNT_TOKENS: Speech(
        messages_request.read_count,
        lambda _, request: messages.counted(request),
        lambda _, request: (messages.counted(request),),
        messages.error_body,
        messages.MALFORMED,
        _MESSAGES.headers,
    ),
}


def parse_request(
    body: bytes, headers: Mapping[str, str] | None = None, dialect: Dialect = Dialect.CHAT
) -> ScriptedRequest:
    """Read a request's body. RequestError where the dialect's vendor would refuse it."""
    lower = {name.lower(): value for name, value in (headers or {}).items()}
    return SPEECH[dialect].read(body, lower)
