"""Legacy completions in the other form: a body as a stream, and a stream as a body. Pure.

A chunk has the shape of a body, so that nothing of either is lost.
"""

from __future__ import annotations

from typing import Any

import msgspec

from llm_proxy.wire.sse import SseReader

_DONE = b"data: [DONE]\n\n"


def stream_of_body(body: bytes) -> bytes:
    """The whole reply as one chunk."""
    return b"data: " + msgspec.json.encode(msgspec.json.decode(body)) + b"\n\n" + _DONE


def body_of_stream(stream: bytes) -> bytes:
    """The chunks put together: texts joined, of everything else the last that was said."""
    reader = SseReader()
    whole: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for frame in (*reader.feed(stream), *reader.close()):
        if not frame.data.startswith(b"{"):
            continue
        chunk: dict[str, Any] = msgspec.json.decode(frame.data)
        for part in chunk.pop("choices", None) or ():
            _add(choices.setdefault(part.get("index", 0), {"text": ""}), part)
        whole |= {key: value for key, value in chunk.items() if value is not None}
    return msgspec.json.encode(whole | {"choices": [choices[index] for index in sorted(choices)]})


def _add(choice: dict[str, Any], part: dict[str, Any]) -> None:
    text = choice["text"] + (part.get("text") or "")
    before = {key: value for key, value in choice.items() if value is not None}
    choice |= part | before | {key: value for key, value in part.items() if value is not None}
    choice["text"] = text
