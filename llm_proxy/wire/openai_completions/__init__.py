"""OpenAI legacy completions: a prompt in, text out, no tools."""

from __future__ import annotations

from llm_proxy.wire import untooled
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import errors, upstream
from llm_proxy.wire.openai_completions import prompts, reply, request

OPENAI_COMPLETIONS = Dialect(
    name="openai_completions",
    path="/v1/completions",
    upstream_path="/completions",
    operation="text_completion",
    cap_field="max_tokens",
    declared=frozenset({"suffix"}),
    parse=request.parse,
    message_facts=prompts.prompt_facts,
    upstream_edits=upstream.upstream_edits,
    read_body=reply.read_body,
    read_frame=reply.read_frame,
    edit_body=untooled.edit_body,
    edit_frames=untooled.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
    signed=untooled.signed,
    passes=frozenset({b"openai-beta"}),
)
