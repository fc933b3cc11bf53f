"""Every other provider, through the litellm package: the only module that imports it.

Importing litellm takes seconds, and its calls do work of milliseconds without awaiting anything. So it has a
thread of its own with an event loop of its own: it is imported there, called there and closed there, and only
bytes cross over. The proxy's own loop is never held.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import warnings
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from threading import Thread
from types import TracebackType
from typing import Any, TypeVar

from llm_proxy.upstream.litellm_errors import failure
from llm_proxy.upstream.litellm_shapes import (
    DONE,
    PLUMBING,
    Arguments,
    Incoming,
    chat_arguments,
    embedding_arguments,
    refusal,
    signing_format,
)
from llm_proxy.upstream.provider import Endpoint, Sending, UpstreamFailure
from routing.failures import FailureKind

T = TypeVar("T")

_LONGEST_S = 3600.0
"""litellm's own limit of a call, above every limit that a route can set."""
_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its price list on import
    "LITELLM_MODE": "PRODUCTION",  # else it reads a .env file from the working directory
}
_SENT: ContextVar[list[bool]] = ContextVar("litellm_sent")
_LOGGERS = ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy")


class _Whole:
    """A reply that came at once."""

    streamed = False
    status = 200
    content_type = "application/json"

    def __init__(self, body: bytes, dropped: tuple[str, ...]) -> None:
        self._body = body
        self.headers: Mapping[str, str] = {}
        self.dropped = dropped

    async def chunk(self) -> bytes:
        body, self._body = self._body, b""
        return body


class _Streamed:
    """A reply that is arriving."""

    streamed = True
    status = 200
    content_type = "text/event-stream"

    def __init__(self, thread: _Thread, stream: _Stream, dropped: tuple[str, ...]) -> None:
        self._thread = thread
        self._stream = stream
        self.headers: Mapping[str, str] = {}
        self.dropped = dropped

    async def chunk(self) -> bytes:
        return await self._thread.run(self._stream.next_frame())


class _Stream:
    """litellm's stream as frames of OpenAI's. Lives in litellm's thread."""

    def __init__(self, chunks: Any, incoming: Incoming, secret: str) -> None:
        self._chunks = chunks
        self._iterator: AsyncIterator[Any] = aiter(chunks)
        self._incoming = incoming
        self._secret = secret
        self._counted = False
        self._over = False

    async def next_frame(self) -> bytes:
        """The next event, `[DONE]` the last, then b"". Raises UpstreamFailure."""
        while not self._over:
            try:
                chunk = await anext(self._iterator, None)
            except Exception as error:  # noqa: BLE001  vendors may raise anything
                raise failure(error, self._secret) from None
            if chunk is None:
                self._over = True
                return DONE
            if self._cut():
                raise UpstreamFailure(FailureKind.TRUNCATED, "the stream ended without its end")
            self._forget()
            if frame := self._incoming.frame(_plain(chunk), with_usage=self._counted):
                return frame
        return b""

    async def close(self) -> None:
        self._over = True
        await self._chunks.aclose()

    def _cut(self) -> bool:
        """Where a stream ends without a finish reason litellm makes one up, `stop`."""
        return (
            self._chunks.sent_last_chunk
            and self._chunks.received_finish_reason is None
            and self._chunks.intermittent_finish_reason is None
        )

    def _forget(self) -> None:
        """Lets go of chunks that litellm keeps to count tokens itself: only usage that came is passed on."""
        kept = [chunk for chunk in self._chunks.chunks if getattr(chunk, "usage", None) is not None]
        self._counted = self._counted or bool(kept)
        self._chunks.chunks[:] = kept


class _Attempt:
    """One request: entering sends it; leaving closes its stream, in mid-reply too."""

    def __init__(self, thread: _Thread, endpoint: Endpoint, sending: Sending, connect_s: float) -> None:
        self._thread = thread
        self._endpoint = endpoint
        self._sending = sending
        self._connect_s = connect_s
        self._stream: _Stream | None = None
        self._left = False

    async def __aenter__(self) -> _Whole | _Streamed:
        try:
            return await self._thread.run(self._send())
        except BaseException:
            self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._left = True
        if self._stream is not None:
            self._thread.begin(self._stream.close())

    async def _send(self) -> _Whole | _Streamed:
        """Runs in litellm's thread."""
        litellm = self._thread.litellm()
        arguments = self._arguments(litellm)
        call = litellm.aembedding if self._is_embedding else litellm.acompletion
        fields = arguments.fields | self._settings()
        secret = self._endpoint.api_key
        sent: list[bool] = []
        _SENT.set(sent)
        try:
            reply = await call(model=f"{self._endpoint.provider}/{arguments.model}", **fields)
        except litellm.UnsupportedParamsError:
            raise self._unsupported(litellm, arguments) from None
        except Exception as error:  # noqa: BLE001  vendors may raise anything
            raise failure(error, secret, sent=bool(sent)) from None
        dropped = tuple(arguments.dropped)
        incoming = Incoming(signing_format(self._endpoint.provider, arguments.model))
        if not self._sending.stream or self._is_embedding:
            return _Whole(incoming.body(_plain(reply)), dropped)
        self._stream = stream = _Stream(reply, incoming, secret)
        if self._left:
            await stream.close()
        return _Streamed(self._thread, stream, dropped)

    @property
    def _is_embedding(self) -> bool:
        return self._sending.path == "/embeddings"

    def _arguments(self, litellm: Any) -> Arguments:
        provider, sending = self._endpoint.provider, self._sending
        match sending.path:
            case "/chat/completions":
                return chat_arguments(
                    sending.body,
                    provider,
                    stream=sending.stream,
                    supported=lambda model: _supported(litellm, provider, model),
                )
            case "/embeddings":
                return embedding_arguments(sending.body, provider)
            case path:
                raise refusal(f"Provider {provider} serves no {path}: chat completions and embeddings alone.")

    def _settings(self) -> dict[str, Any]:
        """Everything about the call that is not the caller's."""
        endpoint, sending = self._endpoint, self._sending
        httpx = importlib.import_module("httpx")
        settings: dict[str, Any] = {
            "api_base": endpoint.url or None,
            "api_key": endpoint.api_key or None,
            "timeout": httpx.Timeout(_LONGEST_S, connect=self._connect_s),
            "num_retries": 0,
            "max_retries": 0,
            "no-log": True,
            "logger_fn": _note_sent,
        }
        if headers := {**endpoint.headers, **sending.headers}:
            settings["extra_headers"] = headers
        if not self._is_embedding:
            settings["stream"] = sending.stream
        return settings

    def _unsupported(self, litellm: Any, arguments: Arguments) -> UpstreamFailure:
        provider, model = self._endpoint.provider, arguments.model
        known = _supported(litellm, provider, model)
        names = [name for name in arguments.fields if name not in known and name not in PLUMBING]
        what = ", ".join(map(repr, names)) or "a parameter of the request"
        return refusal(
            f"Provider {provider} can't take {what} for model {model!r}: leave it out.",
            names[0] if names else None,
        )


class _Thread:
    """litellm's thread and event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = Thread(target=self._main, name="litellm", daemon=True)
        self._package: Any = None
        self._missing = ""
        self._begun: set[Future[None]] = set()
        self._thread.start()

    def litellm(self) -> Any:
        """The package. Raises UpstreamFailure where it can't be imported."""
        if self._package is None:
            raise UpstreamFailure(FailureKind.SERVER_ERROR, f"litellm can't be imported: {self._missing}")
        return self._package

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Does `work` in the thread. Cancelling the wait cancels the work."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Has `work` done and doesn't wait for it."""
        try:
            begun = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed, and all that was in it
            work.close()
            return
        self._begun.add(begun)
        begun.add_done_callback(self._begun.discard)

    async def close(self) -> None:
        """Ends the thread, once what was begun is done."""
        await asyncio.gather(*map(asyncio.wrap_future, self._begun.copy()), return_exceptions=True)
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        try:
            self._package = _import()
        except ImportError as error:
            self._missing = str(error)
        await self._stop.wait()
        if self._package is not None:
            await self._package.close_litellm_async_clients()
            self._package.in_memory_llm_clients_cache.flush_cache()


class LiteLLMProvider:
    """Every provider that litellm knows. `start` begins the import; calls wait until it is done."""

    def __init__(self) -> None:
        self._thread: _Thread | None = None

    def start(self) -> None:
        """Idempotent."""
        if self._thread is None:
            self._thread = _Thread()

    def open(self, endpoint: Endpoint, sending: Sending, connect_s: float) -> _Attempt:
        self.start()
        assert self._thread is not None
        return _Attempt(self._thread, endpoint, sending, connect_s)

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await thread.close()


def _import() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.drop_params = False
    litellm.modify_params = False
    litellm.user_url_validation = True
    for name in _LOGGERS:
        logging.getLogger(name).disabled = True  # they would write what calls said to stderr
    warnings.filterwarnings("ignore", category=UserWarning, module="pydantic")  # so would these
    return litellm


def _note_sent(details: Mapping[str, Any]) -> None:
    """litellm calls this when a request has its vendor's form and goes out, and again with the answer."""
    _SENT.get().append(True)


def _supported(litellm: Any, provider: str, model: str) -> frozenset[str]:
    """The provider's parameters in OpenAI's names; empty where litellm doesn't know."""
    return frozenset(litellm.get_supported_openai_params(model=model, custom_llm_provider=provider) or ())


def _plain(reply: Any) -> dict[str, Any]:
    return reply.model_dump(mode="json", exclude_none=True, warnings=False)
