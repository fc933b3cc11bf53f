"""OpenAI Responses, as OpenAI and the servers that copy it speak it."""

from __future__ import annotations

from llm_proxy.wire.dialect import Declares, Dialect
from llm_proxy.wire.openai_responses import (
    declared,
    edit,
    edit_stream,
    errors,
    item,
    reader,
    reply,
    request,
    results,
    upstream,
)
from llm_proxy.wire.openai_responses.onward import ONWARDS
from llm_proxy.wire.openai_responses.translation import TRANSLATION

OPENAI_RESPONSES = Dialect(
    name="openai_responses",
    path="/v1/responses",
    upstream_path="/responses",
    cap_field="max_output_tokens",
    declared=frozenset({"tools", "instructions", "text"}),
    ordered=True,
    keeps=True,
    parse=request.parse,
    message_facts=item.message_facts,
    upstream_edits=upstream.upstream_edits,
    read_body=reply.read_body,
    read_frame=reply.read_frame,
    reader=reader.stream_reader,
    edit_body=edit.edit_body,
    edit_frames=edit_stream.edit_frames,
    error_body=errors.error_body,
    error_frame=errors.error_frame,
    signed=item.signed,
    results_at=results.results_at,
    passes=frozenset({b"openai-beta"}),
    translation=TRANSLATION,
    declares=Declares(keys=declared.KEYS, items=declared.declaring_items, read=declared.read_declared),
    onwards=ONWARDS,
)
