"""Which paths below `/v1` pass through: judged by the same bytes that an upstream will read.

A path that two servers could read as two different ones is refused, so that no spelling of a dialect's own
path reaches an upstream unjudged.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from llm_proxy.errors import Kind, ProxyError

MAX_PATH = 512

_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~:@!$&'()*+,=-]|%(?:2[0146-9A-Ca-c]|3[ADad]|40|5[BDbd]|7[CPcd]))+")
"""What RFC 3986 lets a segment hold, less `;` (some servers cut a segment there).

Of escapes, those of a space and of punctuation that means nothing in a path: not of a letter, a digit, `-`,
`.`, `_` or `~`, which would spell a word in a second way, nor of `/`, `\\`, `%`, `;`, `?`, `#`, a control
character or a byte beyond ASCII.
"""

_ADMINISTRATIVE = frozenset({"organization", "organizations", "projects"})
"""Nothing that an agent may reach with the target's key."""
_OWN = ("chat/completions", "completions", "embeddings", "messages", "responses")
"""Where the dialects are served."""
_BELOW = tuple([f"{own}/" for own in _OWN])
_ENDINGS = ("/completions", "/responses", "/embeddings", "/v1/messages")
"""What ends a dialect's path behind a prefix (`messages` alone ends others: `threads/t/messages`)."""
_NOT_GENERATING = re.compile(
    r"(?:responses/input_tokens"
    r"|responses/resp_[^/]+(?:/cancel|/input_items)?"
    r"|chat/completions/(?:chatcmpl|cmpl)-[^/]+(?:/messages)?"
    r"|messages/batches(?:/.*)?)"
)
"""Below those paths: counting input, what is stored, and batches. All else there is taken to generate."""

_STORED = "a reply that the provider stored holds its tool calls as the model gave them"
_HOSTED = "the provider runs the conversation, and its tool calls are read without being judged"
_BATCH = "a batch's requests are sent from a file, and its results hold tool calls that were not judged"
_PAST = "its session runs between the caller and the provider, past this proxy"
_OTHER_API = "it is another API for generating, whose tool calls are not understood here"

_REASONS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"(?:responses|chat/completions)(?:/.*)?"), _STORED),
    (re.compile(r"(?:threads|assistants|conversations|agents|chatkit/threads|evals)(?:/.*)?"), _HOSTED),
    (re.compile(r"(?:messages/)?batches(?:/.*)?"), _BATCH),
    (re.compile(r"(?:realtime|live|chatkit/sessions)(?:/.*)?"), _PAST),
    (
        re.compile(r"(?:engines|deployments|chat|complete|generate|infill|fim|interactions)(?:/.*)?"),
        _OTHER_API,
    ),
    (
        re.compile(r".*:(?:stream)?(?:generate|raw|predict)[^/]*|.*/(?:chat|generate|invoke|converse)"),
        _OTHER_API,
    ),
)


def checked_path(path: str) -> str:
    """The part of a request's path below `/v1`, with its leading slash, as it may be sent on.

    `path` is as the request line has it, undecoded, without the query. Raises `ProxyError` (invalid_request)
    for whatever two servers could read differently: dot and empty segments (a trailing slash makes one),
    backslashes, `;`, escapes that hide a separator or spell a plain character, control and non-ASCII
    characters, and more than 512 characters.
    """
    if len(path) > MAX_PATH:
        raise _refused(f"The path is {len(path)} characters long: send at most {MAX_PATH}")
    root, version, below = path[:1], path[1:4], path[4:]
    if (root, version) != ("/", "v1/") or not below:
        raise _refused("The path is not below /v1/: send one that is")
    for segment in below.split("/"):
        if not segment:
            raise _refused("The path has an empty segment: send it without doubled or trailing slashes")
        if segment.strip(".") == "":
            raise _refused("The path has a segment of dots: send it resolved")
        if _SEGMENT.fullmatch(segment) is None:
            raise _refused(
                f"The path segment {segment[:80]!a} can be read in more than one way: send letters and "
                "digits as they are, and no encoded slash, dot, backslash, percent sign or control character"
            )
    return "/" + below


def is_model_path(path: str) -> bool:
    """Whether a path below `/v1` is one of the dialects' own, however spelled, or generates below one.

    Such a path must never pass through. A prefix does not hide one: `/beta/chat/completions` is one too.
    """
    plain = _plain(path)
    if plain.startswith("organization/"):  # usage reports are named after what they report
        return False
    if plain in _OWN or plain.endswith(_ENDINGS):
        return True
    return plain.startswith(_BELOW) and _NOT_GENERATING.fullmatch(plain) is None


def is_administrative(path: str) -> bool:
    """Whether a path below `/v1` is where a provider's own keys and members are kept, however spelled."""
    return _plain(path).partition("/")[0] in _ADMINISTRATIVE


def returns_calls(path: str) -> str:
    """Why what a path below `/v1` returns may hold, or lead to, tool calls that nobody judges; empty if not.

    The rest of a sentence that begins with the path. Files are not among them: without batches none holds
    a reply.
    """
    plain = _plain(path)
    return next((reason for pattern, reason in _REASONS if pattern.fullmatch(plain)), "")


def _plain(path: str) -> str:
    """A path without what servers overlook: escapes, case, outer blanks, doubled and trailing slashes."""
    segments = [segment.strip() for segment in unquote(path).lower().split("/")]
    return "/".join([segment for segment in segments if segment])


def _refused(message: str) -> ProxyError:
    return ProxyError(Kind.INVALID_REQUEST, message, retryable=False)
