"""Anthropic Messages, as Anthropic and the servers that copy it speak it, and its count of tokens."""

from __future__ import annotations

from llm_proxy.wire.anthropic_messages import (
    count_tokens,
    declared,
    edit,
    edit_stream,
    errors,
    message,
    reply,
    request,
    results,
    signed,
    stream,
    upstream,
)
from llm_proxy.wire.anthropic_messages.count_tokens import count_body
from llm_proxy.wire.anthropic_messages.onward import ONWARDS
from llm_proxy.wire.anthropic_messages.translation import TRANSLATION
from llm_proxy.wire.dialect import Declares, Dialect

__all__ = ["ANTHROPIC_MESSAGES", "COUNT_TOKENS", "count_body"]

_DECLARED = frozenset({"tools", "system", "output_config", "output_format"})
_PASSES = frozenset({b"anthropic-beta", b"anthropic-version"})
_DECLARES = Declares(keys=declared.KEYS, items=declared.declaring_messages, read=declared.read_declared)

ANTHROPIC_MESSAGES = Dialect(
    name="anthropic_messages",
    path="/v1/messages",
    upstream_path="/messages",
    cap_field="max_tokens",
    declared=_DECLARED,
    ordered=True,
    parse=request.parse,
    message_facts=message.message_facts,
    upstream_edits=upstream.upstream_edits,
    read_body=reply.read_body,
    read_frame=reply.read_frame,
    reader=stream.stream_reader,
    edit_body=edit.edit_body,
    edit_frames=edit_stream.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
    signed=signed.signed,
    results_at=results.results_at,
    unsealed=signed.unsealed,
    passes=_PASSES,
    translation=TRANSLATION,
    declares=_DECLARES,
    onwards=ONWARDS,
)

COUNT_TOKENS = Dialect(
    name="anthropic_count_tokens",
    path="/v1/messages/count_tokens",
    upstream_path="/messages/count_tokens",
    operation="count_tokens",
    generates=False,
    priced=False,
    declared=_DECLARED,
    parse=request.parse_count,
    message_facts=message.message_facts,
    upstream_edits=upstream.count_edits,
    read_body=count_tokens.read_body,
    read_frame=count_tokens.read_frame,
    edit_body=count_tokens.edit_body,
    edit_frames=count_tokens.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
    signed=signed.signed,
    results_at=results.results_at,
    passes=_PASSES,
    declares=_DECLARES,
)
