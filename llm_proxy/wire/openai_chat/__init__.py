"""OpenAI chat completions, as OpenAI and the many servers that copy it speak it."""

from __future__ import annotations

from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import edit, edit_stream, errors, message, reply, request, skim, upstream
from llm_proxy.wire.openai_chat.translation import TRANSLATION

OPENAI_CHAT = Dialect(
    name="openai_chat",
    path="/v1/chat/completions",
    upstream_path="/chat/completions",
    cap_field="max_completion_tokens",
    declared=frozenset({"tools", "functions", "response_format", "prediction"}),
    inline_reasoning=True,
    parse=request.parse,
    message_facts=message.message_facts,
    upstream_edits=upstream.upstream_edits,
    read_body=reply.read_body,
    skim_body=skim.skim_body,
    read_frame=reply.read_frame,
    edit_body=edit.edit_body,
    edit_frames=edit_stream.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
    signed=message.signed,
    passes=frozenset({b"openai-beta"}),
    translation=TRANSLATION,
)
