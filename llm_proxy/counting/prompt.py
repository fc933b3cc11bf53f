"""Counting a prompt part by part: what is counted exactly, and what has a bound instead.

Texts, tool declarations, calls and results are counted. Pictures have their vendor's formula. Sounds, files
and what stands at the vendor under an id are bounded, as each constant here says.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

from llm_proxy.counting.text import TokenCounter
from llm_proxy.counting.tokenizers import Tokenizer
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.request import Media, MediaKind, MessageFacts, WireRequest

PER_MESSAGE = 4
"""Tokens that a chat template adds around each message (role, separators)."""
PER_REPLY = 3
"""Tokens that prime the reply."""
PER_SEAL = 4
"""Characters of sealed reasoning for a token: base64 of words that have four bytes each."""
MOST_FILE = 200_000
"""Tokens of a file of which nothing is known: what fills the usual context window."""
REFERENCE = 4_096
"""Tokens of an item or prompt that stands at the vendor under an id."""
_SOUND_TOKENS = 32
"""Tokens for a second of sound: Gemini's; OpenAI's are 10."""
_SOUND_BYTES = 1_000
"""Bytes that a second of sound has at least: speech at 8 kbit/s."""
_STORED = {"conversation": MOST_FILE, "prompt": REFERENCE}
"""Keys by which a Responses request has input without sending any."""


Tally = dict[Tokenizer, int]
"""Tokens, by each way to count them."""


class PromptCounter:
    """Counts by as many ways as a route's targets have: each text once in each encoding."""

    def __init__(self, texts: TokenCounter) -> None:
        self._texts = texts

    async def message(self, facts: MessageFacts, ways: Iterable[Tokenizer]) -> Tally:
        """One message, with what its template adds."""
        tally = await self.texts(facts.texts, ways)
        same = PER_MESSAGE - (-facts.sealed // PER_SEAL) + REFERENCE * facts.elsewhere
        for way in tally:
            tally[way] += same + sum([media_tokens(media, way) for media in facts.images])
        return tally

    async def texts(self, texts: tuple[str, ...], ways: Iterable[Tokenizer]) -> Tally:
        """Texts alone."""
        tally: Tally = {}
        known: dict[str, int] = {}
        for way in ways:
            name = way.encoding
            if name not in known:
                known[name] = await self._texts.count(texts, name)
            tally[way] = known[name]
        return tally

    async def prompt(self, request: WireRequest, dialect: Dialect, way: Tokenizer) -> int:
        """All of a request, where nothing of it was counted before."""
        tokens = around(request, dialect, way)
        for raw in request.messages:
            tokens += (await self.message(dialect.message_facts(bytes(raw)), (way,)))[way]
        declared = [slice(*at) for key, at in request.spans.items() if key in dialect.declared]
        for at in declared:
            tokens += await self._texts.count((request.body[at].decode(),), way.encoding)
        return tokens


def exact(facts: MessageFacts) -> bool:
    """Whether all of a message is text, so that its count is no bound."""
    return not (facts.images or facts.sealed or facts.elsewhere)


def around(request: WireRequest, dialect: Dialect, way: Tokenizer) -> int:
    """What is neither a message nor declared: the template's end, the vendor's own words, stored input."""
    tokens = PER_REPLY + (way.tools if request.tools else 0)
    return tokens + sum([bound for key, bound in _STORED.items() if names_stored(request, dialect, key)])


def names_stored(request: WireRequest, dialect: Dialect, key: str) -> bool:
    """Whether a request has input that stands at the vendor, under this key."""
    at = request.spans.get(key) if dialect.keeps else None
    return at is not None and request.body[slice(*at)] != b"null"


def is_whole(request: WireRequest, dialect: Dialect) -> bool:
    """Whether all of the input is in the request."""
    return not any(names_stored(request, dialect, key) for key in _STORED)


def media_tokens(media: Media, way: Tokenizer) -> int:
    """A picture by the vendor's formula; sound by its length; a file by its bytes, a token for each."""
    match media.kind:
        case MediaKind.IMAGE:
            return way.vision(media.width, media.height, media.detail)
        case MediaKind.AUDIO if media.size:
            seconds = media.seconds or media.size * 3 / 4 / _SOUND_BYTES
            return min(MOST_FILE, ceil(seconds * _SOUND_TOKENS))
        case MediaKind.FILE if media.size:
            return min(MOST_FILE, -(-media.size * 3 // 4))
        case MediaKind.UPLOAD:
            return 0
        case _:
            return MOST_FILE
