"""Legacy completions and embeddings: requests read, and replies as OpenAI's API writes them."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Mapping
from hashlib import sha256, shake_256

import msgspec
from pydantic import JsonValue

from llm_proxy.scripted.chat import contents_of, error_object, usage
from llm_proxy.scripted.request import (
    Dialect,
    EmbeddingAsk,
    Line,
    RequestError,
    ScriptedRequest,
    talk_of,
)
from llm_proxy.scripted.script import JsonObject, Turn
from llm_proxy.scripted.text import CREATED, data, finish, pieces, pretty, tokens

_DIMENSIONS = 16
_DONE = b"data: [DONE]\n\n"
MALFORMED = b'data: {"id":"cmpl-broken","choices":[{"index":0,"text":"\n\n'

_Inputs = str | list[str | int | list[int]]


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Completion(msgspec.Struct):
    model: str
    prompt: _Inputs = ""
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    n: int | None = None


class _Embedding(msgspec.Struct):
    model: str
    input: _Inputs
    dimensions: int | None = None
    encoding_format: str | None = None


_completion = msgspec.json.Decoder(_Completion)
_embedding = msgspec.json.Decoder(_Embedding)


def read_completion(body: bytes, headers: Mapping[str, str]) -> ScriptedRequest:
    """A legacy completion; its prompts are one message of the user. RequestError where it is none."""
    try:
        parsed = _completion.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is no completion: {error}") from None
    n = 1 if parsed.n is None else parsed.n
    if not 1 <= n <= 128:
        raise RequestError(f"n is {n}; use 1 to 128")
    text = "\n".join(_texts(parsed.prompt))
    options = parsed.stream_options
    return ScriptedRequest(
        model=parsed.model,
        dialect=Dialect.COMPLETIONS,
        stream=bool(parsed.stream),
        include_usage=options is not None and bool(options.include_usage),
        n=n,
        talk=talk_of([Line("user", text)]),
        headers=dict(headers),
        input_bytes=len(text.encode()),
        digest=sha256(body).digest(),
    )


def read_embedding(body: bytes, headers: Mapping[str, str]) -> ScriptedRequest:
    """Texts to embed; they are one message of the user. RequestError where there are none."""
    try:
        parsed = _embedding.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(f"the request is no embedding: {error}") from None
    dimensions = _DIMENSIONS if parsed.dimensions is None else parsed.dimensions
    if not 1 <= dimensions <= 4096:
        raise RequestError(f"dimensions is {dimensions}; use 1 to 4096", param="dimensions")
    texts = _texts(parsed.input)
    return ScriptedRequest(
        model=parsed.model,
        dialect=Dialect.EMBEDDINGS,
        talk=talk_of([Line("user", "\n".join(texts))]),
        headers=dict(headers),
        input_bytes=sum(len(text.encode()) for text in texts),
        digest=sha256(body).digest(),
        embedding=EmbeddingAsk(texts, dimensions, parsed.encoding_format == "base64"),
    )


def _texts(given: _Inputs) -> tuple[str, ...]:
    """One text for each input; token ids are written out."""
    if isinstance(given, str):
        return (given,)
    if given and all(isinstance(item, int) for item in given):
        return (str(given),)
    return tuple(item if isinstance(item, str) else str(item) for item in given)


def completion(turn: Turn, request: ScriptedRequest) -> bytes:
    """A `text_completion` that isn't streamed."""
    if turn.error is not None:
        return pretty(error_object(turn.error))
    contents = contents_of(turn, request.n)
    reply = _envelope(request)
    reply["choices"] = [
        _choice(i, content.text, finish(content)) | turn.choice_extra for i, content in enumerate(contents)
    ]
    if turn.usage != "none":
        reply["usage"] = usage(turn, request, contents)
    return pretty(reply | turn.extra)


def completion_frames(turn: Turn, request: ScriptedRequest) -> tuple[bytes, ...]:
    """Events: pieces of text (choices one after the other), finish, usage where asked for, `[DONE]`."""
    contents = contents_of(turn, request.n)
    sent = [
        _chunk(turn, request, [_choice(i, piece, None)])
        for i, content in enumerate(contents)
        for piece in pieces(content.text, turn.deltas)
    ]
    if turn.error is not None:
        return (*sent, data(error_object(turn.error)))
    sent += [_chunk(turn, request, [_choice(i, "", finish(c))]) for i, c in enumerate(contents)]
    if request.include_usage and turn.usage != "none":
        sent.append(_chunk(turn, request, [], usage(turn, request, contents)))
    return (*sent, _DONE)


def _envelope(request: ScriptedRequest) -> JsonObject:
    return {
        "id": "cmpl-" + request.digest.hex()[:29],
        "object": "text_completion",
        "created": CREATED,
        "model": request.model,
    }


def _choice(index: int, text: str, reason: str | None) -> JsonObject:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


def _chunk(
    turn: Turn, request: ScriptedRequest, choices: list[JsonObject], used: JsonObject | None = None
) -> bytes:
    chunk = _envelope(request)
    chunk["choices"] = [choice | turn.choice_extra for choice in choices]
    if request.include_usage:
        chunk["usage"] = used
    return data(chunk | turn.extra)


def embeddings(turn: Turn, request: ScriptedRequest) -> bytes:
    """A list of unit vectors that follow from the texts alone. ValueError for a request of another kind."""
    if turn.error is not None:
        return pretty(error_object(turn.error))
    ask = request.embedding
    if ask is None:
        raise ValueError("embeddings are made of a request for embeddings")
    reply: JsonObject = {
        "object": "list",
        "data": [_embedded(i, text, ask) for i, text in enumerate(ask.texts)],
        "model": request.model,
    }
    given = turn.usage
    if given != "none":
        used = tokens(request.input_bytes) if given.input is None else given.input
        reply["usage"] = {"prompt_tokens": used, "total_tokens": used}
    return pretty(reply | turn.extra)


def no_frames(turn: Turn, request: ScriptedRequest) -> tuple[bytes, ...]:
    """For what never streams: the whole reply as it is."""
    return (embeddings(turn, request),)


def _embedded(index: int, text: str, ask: EmbeddingAsk) -> JsonValue:
    return {"object": "embedding", "index": index, "embedding": _vector(text, ask)}


def _vector(text: str, ask: EmbeddingAsk) -> JsonValue:
    drawn = shake_256(text.encode()).digest(2 * ask.dimensions)
    numbers = [value / 32768 or 1.0 for value in struct.unpack(f"<{ask.dimensions}h", drawn)]
    length = math.sqrt(sum(number * number for number in numbers))
    unit = [number / length for number in numbers]
    if not ask.as_base64:
        return [*unit]
    return base64.b64encode(struct.pack(f"<{ask.dimensions}f", *unit)).decode()
