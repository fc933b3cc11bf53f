"""What passes through, the request: who it is for, as far as its body says, whatever else it holds."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.asked import Metadata, run_and_user
from llm_proxy.wire.document import read_document
from llm_proxy.wire.faults import invalid
from llm_proxy.wire.lenient import NONE, lenient, string
from llm_proxy.wire.openai_chat import upstream
from llm_proxy.wire.passthrough.forms import field_text, find_fields
from llm_proxy.wire.request import MessageFacts, WireRequest
from llm_proxy.wire.spans import Edit, Span

_FIELDS = ("model", "stream", "stream_format", "user")
_TRUE = frozenset({"true", "1", "on", "yes", "t", "y"})
"""What form parsers take for true, in lower case."""
_READS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_SILENT = frozenset(
    {
        "batches",
        "containers",
        "files",
        "fine_tuning",
        "models",
        "moderations",
        "rerank",
        "score",
        "tokenize",
        "uploads",
        "vector_stores",
    }
)
"""First segments of paths whose replies hold no generated tokens."""


class PassthroughRequest(WireRequest, frozen=True, kw_only=True):
    """A request of which only its model, its caller and whether it streams are read."""

    form_model: Span | None = None
    """Where a form holds the model's name, as plain text."""


class _Body(msgspec.Struct):
    """Raw where the APIs differ: a value of an unexpected type is the upstream's to refuse."""

    model: str | None = None
    stream: msgspec.Raw = NONE
    stream_format: msgspec.Raw = NONE
    user: msgspec.Raw = NONE
    metadata: msgspec.Raw = NONE


_body = msgspec.json.Decoder(_Body).decode
_metadata = lenient(Metadata)


def parse(body: bytes) -> PassthroughRequest:
    """The same where neither path nor content type is known: from a record."""
    return parse_request("POST", "", "", body)


def parse_request(method: str, path: str, content_type: str, body: bytes) -> PassthroughRequest:
    """Read a request; `path` is the part below `/v1`. `model` is empty where the body names none.

    A body that begins like a JSON object has to be one whatever its content type, since servers read it so.
    Raises `ProxyError` (invalid_request) for JSON and forms that can be read in more than one way, and for
    content types in which a model could stand unseen.
    """
    kind = content_type.partition(";")[0].strip().lower()
    max_output = 0 if method.upper() in _READS or path.strip("/").partition("/")[0] in _SILENT else None
    if kind == "multipart/form-data":
        return _form(content_type, body, max_output)
    if kind.startswith("multipart/") or kind == "application/x-www-form-urlencoded":
        raise invalid(
            f"Content type {kind[:80]!r} is not passed through: send application/json or multipart/form-data",
            "content-type",
        )
    content = body.lstrip(b" \t\r\n")
    if content.startswith(b"{") or (content and _says_json(kind) and not content.startswith(b"[")):
        return _json(body, max_output)
    return PassthroughRequest(body=body, model="", spans={}, max_output=max_output)


def message_facts(raw: bytes) -> MessageFacts:
    """Nothing: what passes through has no messages."""
    return MessageFacts()


def upstream_edits(
    request: WireRequest, model: str, cap: tuple[str, int] | None = None, *, ask_usage: bool = False
) -> list[Edit]:
    """The model's name at the target, where the body names one; nothing is added to a body that doesn't."""
    if not request.model or model == request.model:
        return []
    if isinstance(request, PassthroughRequest) and request.form_model:
        return [(*request.form_model, model.encode())]
    if "model" not in request.spans:  # a default serves it
        return []
    return upstream.upstream_edits(request, model)


def _json(body: bytes, max_output: int | None) -> PassthroughRequest:
    spans, typed = read_document(body, _body)
    run, user = run_and_user(_metadata(typed.metadata), string(typed.user))
    return PassthroughRequest(
        body=body,
        model=typed.model or "",
        stream=bytes(typed.stream) == b"true" or string(typed.stream_format) == "sse",
        spans=spans,
        max_output=max_output,
        user=user,
        run=run,
    )


def _form(content_type: str, body: bytes, max_output: int | None) -> PassthroughRequest:
    found = find_fields(content_type, body, _FIELDS)
    texts = {name: field_text(name, body, at) for name, at in found.items()}
    if texts.get("model") == "":
        raise invalid("The form's field model is empty: name a model, or leave the field out", "model")
    return PassthroughRequest(
        body=body,
        model=texts.get("model", ""),
        stream=texts.get("stream", "").lower() in _TRUE or texts.get("stream_format") == "sse",
        spans={},
        max_output=max_output,
        user=texts.get("user", ""),
        form_model=found.get("model"),
    )


def _says_json(kind: str) -> bool:
    return kind == "application/json" or kind.endswith("+json")
