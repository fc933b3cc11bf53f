"""Parts of token counts as servers tell them. Of another kind than a number, they count as not told.

Few replies have any of them, so that they are looked at only where one is there.
"""

from __future__ import annotations

import msgspec
from msgspec import structs

from llm_proxy.chat.events import Usage
from llm_proxy.wire.lenient import NONE, lenient


class InputDetails(msgspec.Struct, gc=False):
    """Of OpenAI's APIs and of those that copy them; all but the first two are few servers' own."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_tokens: object = None
    image_tokens: object = None
    cached_tokens_details: msgspec.Raw = NONE
    cache_creation_token_details: msgspec.Raw = NONE
    """What litellm says of cache writes, as Anthropic does."""


class OutputDetails(msgspec.Struct, gc=False):
    reasoning_tokens: int | None = None
    audio_tokens: object = None
    image_tokens: object = None


class _Media(msgspec.Struct, gc=False):
    audio_tokens: object = None
    image_tokens: object = None


class _Writes(msgspec.Struct, gc=False):
    ephemeral_1h_input_tokens: object = None


_media = lenient(_Media)
_writes = lenient(_Writes)


def number(value: object) -> int:
    """A count; 0 for what is none."""
    return max(0, value) if isinstance(value, int) and not isinstance(value, bool) else 0


def hour_writes(raw: msgspec.Raw) -> int:
    """Of Anthropic's `cache_creation`: the tokens that are kept for an hour."""
    told = None if raw is NONE else _writes(raw)
    return 0 if told is None else number(told.ephemeral_1h_input_tokens)


def told(
    given: int,
    made: int,
    inputs: InputDetails | None,
    outputs: OutputDetails | None,
    *,
    cached: int | None = None,
    apart: int = 0,
) -> Usage:
    """Counts as reported, zero included; absurd negatives are zero.

    `cached` stands where the details don't say; `apart` are reasoning tokens that `made` leaves out.
    """
    written, reasoning = 0, apart
    if inputs is not None:
        cached = cached if inputs.cached_tokens is None else inputs.cached_tokens
        written = max(0, inputs.cache_write_tokens or 0)
    if outputs is not None:
        reasoning = max(reasoning, outputs.reasoning_tokens or 0)
    usage = Usage(
        input=given, output=made + apart, cached=max(0, cached or 0), cache_write=written, reasoning=reasoning
    )
    if _plain(inputs, outputs):
        return usage
    return _in_parts(usage, inputs or InputDetails(), outputs or OutputDetails())


def _plain(inputs: InputDetails | None, outputs: OutputDetails | None) -> bool:
    """Whether nothing is told of sound, pictures and the time that cache writes are kept."""
    return (
        inputs is None
        or (
            not (inputs.audio_tokens or inputs.image_tokens)
            and inputs.cached_tokens_details is NONE
            and inputs.cache_creation_token_details is NONE
        )
    ) and (outputs is None or not (outputs.audio_tokens or outputs.image_tokens))


def _in_parts(usage: Usage, inputs: InputDetails, outputs: OutputDetails) -> Usage:
    old = None if inputs.cached_tokens_details is NONE else _media(inputs.cached_tokens_details)
    return structs.replace(
        usage,
        cache_write_hour=hour_writes(inputs.cache_creation_token_details),
        audio_input=number(inputs.audio_tokens),
        audio_output=number(outputs.audio_tokens),
        image_input=number(inputs.image_tokens),
        image_output=number(outputs.image_tokens),
        cached_audio=number(old.audio_tokens) if old is not None else 0,
        cached_image=number(old.image_tokens) if old is not None else 0,
    )
