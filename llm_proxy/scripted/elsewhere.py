"""Small, plausible answers for what no script describes: images, audio, moderations, rerank, files, batches.

Shapes: OpenAI's API reference; rerank as Cohere and Jina have it. A path that is none of them is echoed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import msgspec

from llm_proxy.scripted.reply import ScriptedReply
from llm_proxy.scripted.script import JsonObject
from llm_proxy.scripted.text import CREATED, pretty, tokens

_JSON = "application/json"
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_AUDIO = {
    "mp3": "audio/mpeg",
    "opus": "audio/opus",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_values = msgspec.json.Decoder(dict)
_FORM_FIELD = rb'name="%s"(?:;[^\r\n]*)?\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--'


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to some path. `path` is without `/v1/`, `query` as it was sent."""

    method: str
    path: str
    query: str
    content_type: str
    body: bytes

    def field(self, name: str) -> str:
        """A text field of the JSON object or of the form; empty where there is none."""
        if self.content_type.startswith("multipart/"):
            found = re.search(_FORM_FIELD % name.encode(), self.body, re.DOTALL)
            return found[1].decode("utf-8", "replace") if found else ""
        value = self._json().get(name)
        return value if isinstance(value, str) else ""

    def listed(self, name: str) -> int:
        """How many items a field of the JSON object has; anything but a list is one."""
        value = self._json().get(name)
        return len(value) if isinstance(value, list) else 1

    def number(self, name: str) -> int | None:
        value = self._json().get(name)
        return value if isinstance(value, int) else None

    @property
    def digest(self) -> str:
        return sha256(self.path.encode() + self.body).hexdigest()

    def _json(self) -> JsonObject:
        try:
            return _values.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return {}


def answer_elsewhere(asked: Asked) -> ScriptedReply:
    """The answer of the first route that fits, or an echo."""
    for method, path, answer in _ROUTES:
        found = re.fullmatch(path, asked.path)
        if found and method == asked.method:
            return answer(asked, found.groups())
    return _json(
        {
            "object": "scripted.echo",
            "method": asked.method,
            "path": asked.path,
            "query": asked.query,
            "bytes": len(asked.body),
        }
    )


def _json(value: JsonObject) -> ScriptedReply:
    return _reply(pretty(value), _JSON)


def _reply(body: bytes, content_type: str) -> ScriptedReply:
    return ScriptedReply(200, stream=False, frames=(body,), headers=(("content-type", content_type),))


def _images(asked: Asked, _: Sequence[str]) -> ScriptedReply:
    as_url = asked.field("response_format") == "url"
    image: JsonObject = {"b64_json": _PIXEL}
    if as_url:
        image = {"url": f"https://images.invalid/{asked.digest[:12]}.png"}
    used = tokens(len(asked.field("prompt").encode()))
    return _json(
        {
            "created": CREATED,
            "data": [*[image] * (asked.number("n") or 1)],
            "usage": {
                "input_tokens": used,
                "input_tokens_details": {"image_tokens": 0, "text_tokens": used},
                "output_tokens": 272,
                "total_tokens": used + 272,
            },
        }
    )


def _speech(asked: Asked, _: Sequence[str]) -> ScriptedReply:
    kind = _AUDIO.get(asked.field("response_format"), "audio/mpeg")
    return _reply(b"ID3\x04\x00\xff\xfb" + sha256(asked.body).digest() * 8, kind)


def _transcription(asked: Asked, _: Sequence[str]) -> ScriptedReply:
    said = "This is what the recording says."
    if asked.field("response_format") in ("text", "srt", "vtt"):
        return _reply(said.encode() + b"\n", "text/plain; charset=utf-8")
    return _json({"text": said, "usage": {"type": "duration", "seconds": 3}})


def _moderations(asked: Asked, _: Sequence[str]) -> ScriptedReply:
    result: JsonObject = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.001),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    results = [result] * asked.listed("input")
    return _json({"id": f"modr-{asked.digest[:24]}", "model": asked.field("model"), "results": [*results]})


def _rerank(asked: Asked, _: Sequence[str]) -> ScriptedReply:
    documents = asked.listed("documents")
    shown = min(documents, asked.number("top_n") or documents)
    return _json(
        {
            "id": f"rerank-{asked.digest[:24]}",
            "model": asked.field("model"),
            "results": [{"index": i, "relevance_score": round(1 / (i + 1), 4)} for i in range(shown)],
            "usage": {"total_tokens": tokens(len(asked.body))},
        }
    )


def _file(id_: str, size: int = 120, purpose: str = "batch") -> JsonObject:
    return {
        "id": id_,
        "object": "file",
        "bytes": size,
        "created_at": CREATED,
        "expires_at": None,
        "filename": "scripted.jsonl",
        "purpose": purpose,
        "status": "processed",
        "status_details": None,
    }


def _upload(asked: Asked, _: Sequence[str]) -> ScriptedReply:
    size = len(asked.field("file").encode())
    return _json(_file(f"file-{asked.digest[:24]}", size, asked.field("purpose")))


def _files(_: Asked, __: Sequence[str]) -> ScriptedReply:
    return _json(_list(_file("file-scripted")))


def _one_file(_: Asked, ids: Sequence[str]) -> ScriptedReply:
    return _json(_file(ids[0]))


def _file_content(_: Asked, ids: Sequence[str]) -> ScriptedReply:
    return _reply(b'{"file":"%b"}\n' % ids[0].encode(), "application/octet-stream")


def _delete_file(_: Asked, ids: Sequence[str]) -> ScriptedReply:
    return _json({"id": ids[0], "object": "file", "deleted": True})


def _batch(id_: str, status: str, endpoint: str = "/v1/chat/completions", file: str = "") -> JsonObject:
    done = status == "completed"
    return {
        "id": id_,
        "object": "batch",
        "endpoint": endpoint,
        "errors": None,
        "input_file_id": file or "file-scripted",
        "completion_window": "24h",
        "status": status,
        "output_file_id": f"file-{id_}" if done else None,
        "error_file_id": None,
        "created_at": CREATED,
        "completed_at": CREATED + 60 if done else None,
        "request_counts": {"total": 1, "completed": int(done), "failed": 0},
        "metadata": None,
    }


def _new_batch(asked: Asked, _: Sequence[str]) -> ScriptedReply:
    id_ = f"batch_{asked.digest[:24]}"
    return _json(_batch(id_, "validating", asked.field("endpoint"), asked.field("input_file_id")))


def _batches(_: Asked, __: Sequence[str]) -> ScriptedReply:
    return _json(_list(_batch("batch_scripted", "completed")))


def _one_batch(_: Asked, ids: Sequence[str]) -> ScriptedReply:
    return _json(_batch(ids[0], "completed"))


def _cancel_batch(_: Asked, ids: Sequence[str]) -> ScriptedReply:
    return _json(_batch(ids[0], "cancelling"))


def _list(one: JsonObject) -> JsonObject:
    return {"object": "list", "data": [one], "first_id": one["id"], "last_id": one["id"], "has_more": False}


_ROUTES: tuple[tuple[str, str, Callable[[Asked, Sequence[str]], ScriptedReply]], ...] = (
    ("POST", "images/(?:generations|edits|variations)", _images),
    ("POST", "audio/speech", _speech),
    ("POST", "audio/(?:transcriptions|translations)", _transcription),
    ("POST", "moderations", _moderations),
    ("POST", "rerank", _rerank),
    ("POST", "files", _upload),
    ("GET", "files", _files),
    ("GET", "files/([^/]+)", _one_file),
    ("GET", "files/([^/]+)/content", _file_content),
    ("DELETE", "files/([^/]+)", _delete_file),
    ("POST", "batches", _new_batch),
    ("GET", "batches", _batches),
    ("GET", "batches/([^/]+)", _one_batch),
    ("POST", "batches/([^/]+)/cancel", _cancel_batch),
)
