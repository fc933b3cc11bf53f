"""Counting a prompt part by part: what is counted exactly, and what has a bound instead.

Texts, tool declarations, calls and results are counted. Pictures have their vendor's formula. Sounds, files
and what stands at the vendor under an id are bounded, as each constant here says.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil

import msgspec

from llm_proxy.counting.text import TokenCounter
from llm_proxy.counting.tokenizers import Tokenizer
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.lenient import lenient
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
_LOOKS = ("mcp_servers", "plugins", "web_search_options")
"""Keys by which the vendor looks for more: Anthropic's, OpenRouter's, OpenAI's."""
_OURS = ("function", "custom", "", None)
"""Kinds of tools that the caller runs itself: what they said stands in its next request."""


class _Tool(msgspec.Struct, gc=False):
    type: object = None


_tools = lenient(list[_Tool])

Tally = dict[Tokenizer, int]
"""Tokens, by each way to count them."""


class PromptCounter:
    """Counts by as many ways as a route's targets have: each text once in each encoding."""

    def __init__(self, texts: TokenCounter) -> None:
        self._texts = texts

    async def message(self, facts: MessageFacts, ways: Iterable[Tokenizer]) -> Tally:
        """One message, with what its template adds."""
        tally = await self.texts(facts.texts, ways)
        same = PER_MESSAGE + bounded(facts)
        pictures = [media for media in facts.images if media.kind is MediaKind.IMAGE]
        for way in tally:
            tally[way] += same + sum([way.vision(one.width, one.height, one.detail) for one in pictures])
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

    async def prompt(
        self, request: WireRequest, dialect: Dialect, way: Tokenizer, window: int | None = None
    ) -> int:
        """All of a request of which nothing was counted before, for a model that takes `window` tokens."""
        guessed = stored(request, dialect)
        tokens = guessed + around(request, way)
        for raw in request.messages:
            facts = dialect.message_facts(bytes(raw))
            guessed += bounded(facts)
            tokens += (await self.message(facts, (way,)))[way]
        declared = [slice(*at) for key, at in request.spans.items() if key in dialect.declared]
        for at in declared:
            tokens += await self._texts.count((request.body[at].decode(),), way.encoding)
        return within(window, tokens, tokens - guessed)


def exact(facts: MessageFacts) -> bool:
    """Whether all of a message is text, so that its count is no bound."""
    return not (facts.images or facts.sealed or facts.elsewhere)


def around(request: WireRequest, way: Tokenizer) -> int:
    """What is neither a message nor declared: the template's end, the vendor's own words for tools."""
    return PER_REPLY + (way.tools if request.tools else 0)


def stored(request: WireRequest, dialect: Dialect) -> int:
    """A bound on the input that a request has without sending it; 0 where it sends all."""
    if not dialect.keeps:
        return 0
    return sum([bound for key, bound in _STORED.items() if _says(request, key)])


def converses(request: WireRequest, dialect: Dialect) -> bool:
    """Whether a request goes on with a conversation that stands at the vendor alone."""
    return dialect.keeps and _says(request, "conversation")


def reads_more(request: WireRequest) -> bool:
    """Whether a request has the vendor look for more input by itself, whatever tools it declares."""
    return any(_says(request, key) for key in _LOOKS)


def runs_tools(declared: bytes) -> bool:
    """Whether the vendor itself runs one of the declared tools, whose results the model reads, too."""
    if declared == b"null":
        return False
    tools = _tools(declared)
    return tools is None or not all(tool.type in _OURS for tool in tools)


def bounded(facts: MessageFacts) -> int:
    """Of a message's tokens those that are only a bound: of what nobody here can read, pictures apart."""
    media = sum([_bound(one) for one in facts.images])
    return media - (-facts.sealed // PER_SEAL) + REFERENCE * facts.elsewhere


def within(window: int | None, tokens: int, read: int) -> int:
    """`tokens` of a prompt, of which `read` are no bound: no more than `window`, where that is known.

    A model takes no longer prompt. Where what was read alone is longer, its window isn't what a table says.
    """
    return tokens if window is None else min(tokens, max(window, read))


def _says(request: WireRequest, key: str) -> bool:
    at = request.spans.get(key)
    return at is not None and request.body[slice(*at)] != b"null"


def _bound(media: Media) -> int:
    """Sound by its length; a file by its bytes, a token for each; nothing for a picture, which is counted."""
    match media.kind:
        case MediaKind.IMAGE | MediaKind.UPLOAD:
            return 0
        case MediaKind.AUDIO if media.size:
            seconds = media.seconds or media.size * 3 / 4 / _SOUND_BYTES
            return min(MOST_FILE, ceil(seconds * _SOUND_TOKENS))
        case MediaKind.FILE if media.size:
            return min(MOST_FILE, -(-media.size * 3 // 4))
        case _:
            return MOST_FILE
