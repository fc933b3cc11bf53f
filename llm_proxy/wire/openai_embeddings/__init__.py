"""OpenAI embeddings: texts in, vectors out."""

from __future__ import annotations

from llm_proxy.wire import untooled
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import errors
from llm_proxy.wire.openai_completions import prompts
from llm_proxy.wire.openai_embeddings import reply, request

OPENAI_EMBEDDINGS = Dialect(
    name="openai_embeddings",
    path="/v1/embeddings",
    upstream_path="/embeddings",
    operation="embeddings",
    generates=False,
    parse=request.parse,
    message_facts=prompts.input_facts,
    upstream_edits=request.upstream_edits,
    read_body=reply.read_body,
    read_frame=reply.read_frame,
    edit_body=untooled.edit_body,
    edit_frames=untooled.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
    signed=untooled.signed,
    passes=frozenset({b"openai-beta"}),
)
