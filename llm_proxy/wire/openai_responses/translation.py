"""OpenAI Responses as one side of a translation."""

from __future__ import annotations

from llm_proxy.wire.dialect import Translation
from llm_proxy.wire.openai_responses.prompt_read import read_prompt
from llm_proxy.wire.openai_responses.prompt_write import write_prompt
from llm_proxy.wire.openai_responses.render import ResponsesRenderer
from llm_proxy.wire.openai_responses.render_body import render_body

TRANSLATION = Translation(
    read_prompt=read_prompt,
    write_prompt=write_prompt,
    renderer=ResponsesRenderer,
    render_body=render_body,
)
