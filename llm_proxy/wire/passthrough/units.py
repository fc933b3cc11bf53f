"""What a request that passes through asks for, in the units that price tables know beside tokens."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.lenient import NONE, array, lenient, string
from llm_proxy.wire.passthrough.forms import field_text, find_fields

_MOST = 1_000_000
"""Of anything: what is asked for beyond is the upstream's to refuse, and must not overflow a counter."""
_VIDEO_SECONDS = 4
"""The length of a video that no request names, OpenAI's."""
_DOCUMENTS = 100
"""Documents that one query of a reranker covers (Cohere, Amazon)."""


class Units(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Each counted once; all zero for what is priced by tokens or not at all (moderations, files)."""

    images: int = 0
    characters: int = 0
    """Of text to be spoken."""
    milliseconds: int = 0
    """Of video asked for, or of sound heard."""
    queries: int = 0
    """Of reranking: a hundred documents each."""


class _Body(msgspec.Struct):
    n: msgspec.Raw = NONE
    seconds: msgspec.Raw = NONE
    input: msgspec.Raw = NONE
    documents: msgspec.Raw = NONE


class _Duration(msgspec.Struct):
    seconds: float | None = None


class _BilledUnits(msgspec.Struct):
    search_units: float | None = None


class _Meta(msgspec.Struct):
    billed_units: _BilledUnits | None = None


class _Reply(msgspec.Struct):
    usage: _Duration | None = None
    meta: _Meta | None = None


_body = lenient(_Body)
_reply = lenient(_Reply)
_integer = lenient(int)


def units(path: str, body: bytes, content_type: str) -> Units:
    """What a request that `parse_request` accepted asks for; `path` is the part below `/v1`."""
    match path.lower().strip("/").split("/"):
        case ["images", "generations" | "edits" | "variations"]:
            return Units(images=_count(body, content_type, "n", 1))
        case ["audio", "speech"]:
            return Units(characters=min(_characters(body), _MOST))
        case ["videos"] | ["videos", "edits" | "extensions"]:
            return Units(milliseconds=1_000 * _count(body, content_type, "seconds", _VIDEO_SECONDS))
        case [*_, "rerank"]:
            return Units(queries=max(1, -(-_documents(body) // _DOCUMENTS)))
        case _:
            return Units()


def billed(body: bytes) -> Units:
    """What a whole reply says was used: time of sound (transcriptions by duration), queries (reranking)."""
    reply = _reply(body) if body[:64].lstrip().startswith(b"{") else None
    if reply is None:
        return Units()
    seconds = (reply.usage.seconds if reply.usage else None) or 0
    searched = reply.meta.billed_units.search_units if reply.meta and reply.meta.billed_units else None
    return Units(milliseconds=_up(seconds * 1_000), queries=_up(searched or 0))


def _count(body: bytes, content_type: str, field: str, otherwise: int) -> int:
    """A count from a form or a JSON object; `otherwise` where there is none that can be read."""
    if content_type.strip().lower().startswith("multipart/form-data"):
        found = find_fields(content_type, body, (field,))
        return _whole(field_text(field, body, found[field]), otherwise) if field in found else otherwise
    parsed = _body(body) or _Body()
    given = parsed.n if field == "n" else parsed.seconds
    number = _integer(given)
    return _whole((string(given) or "") if number is None else str(number), otherwise)


def _whole(text: str, otherwise: int) -> int:
    """A number from 1 to a million; more counts as a million."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit()):
        return otherwise
    return max(1, min(int(digits[:9]), _MOST))


def _characters(body: bytes) -> int:
    return len(string((_body(body) or _Body()).input) or "")


def _documents(body: bytes) -> int:
    return len(array((_body(body) or _Body()).documents) or ())


def _up(number: float) -> int:
    """Rounded up, within bounds; nothing for what is no amount."""
    return int(-(-min(number, _MOST * 1_000) // 1)) if number > 0 else 0
