"""OpenAI chat completions, as OpenAI and the many servers that copy it speak it."""

from __future__ import annotations

from llm_proxy.wire.declared import nowhere_else
from llm_proxy.wire.dialect import Declares, Dialect
from llm_proxy.wire.openai_chat import (
    declared,
    edit,
    edit_stream,
    errors,
    message,
    reply,
    request,
    results,
    skim,
    upstream,
)
from llm_proxy.wire.openai_chat.onward import ONWARDS
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
    results_at=results.results_at,
    passes=frozenset({b"openai-beta"}),
    translation=TRANSLATION,
    declares=Declares(keys=declared.KEYS, items=nowhere_else, read=declared.read_declared),
    onwards=ONWARDS,
)
