"""Provider `scripted`: the deterministic model of the demo and the tests, played in this process."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from llm_proxy.scripted.model import ScriptedFault, ScriptedModel, parse_request, play
from llm_proxy.scripted.script import load_script
from llm_proxy.upstream.provider import Endpoint, Sending, UpstreamFailure
from routing.failures import FailureKind, classify_status, retry_after_from


class _Playing:
    def __init__(self, frames: AsyncIterator[bytes], *, streamed: bool) -> None:
        self._frames = frames
        self.streamed = streamed
        self.status = 200
        self.content_type = "text/event-stream" if streamed else "application/json"
        self.headers: Mapping[str, str] = {}
        self.dropped: tuple[str, ...] = ()

    async def chunk(self) -> bytes:
        try:
            return await anext(self._frames, b"")
        except ScriptedFault as fault:
            raise UpstreamFailure(FailureKind.CUT, str(fault)) from None


class ScriptedProvider:
    """Plays each endpoint's script. A script is read once."""

    def __init__(self) -> None:
        self._models: dict[str, ScriptedModel] = {}

    @asynccontextmanager
    async def open(self, endpoint: Endpoint, sending: Sending, connect_s: float) -> AsyncGenerator[_Playing]:
        reply = self._model(endpoint.script).answer(parse_request(sending.body))
        frames = play(reply)
        if reply.status != 200:
            whole = b"".join([frame async for frame in frames])
            headers = {name.lower(): value for name, value in reply.headers}
            raise UpstreamFailure(
                classify_status(reply.status),
                f"the target answered {reply.status}",
                status=reply.status,
                retry_after_s=retry_after_from(headers, 0.0),
                body=whole,
            )
        yield _Playing(frames, streamed=reply.stream)

    async def close(self) -> None:
        self._models.clear()

    def _model(self, script: str) -> ScriptedModel:
        if script not in self._models:
            self._models[script] = ScriptedModel(load_script(Path(script)))
        return self._models[script]
