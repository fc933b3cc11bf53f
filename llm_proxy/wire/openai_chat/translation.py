"""OpenAI chat completions as one side of a translation."""

from __future__ import annotations

from llm_proxy.wire.dialect import Translation
from llm_proxy.wire.openai_chat.prompt_read import read_prompt
from llm_proxy.wire.openai_chat.prompt_write import write_prompt
from llm_proxy.wire.openai_chat.render import ChatRenderer
from llm_proxy.wire.openai_chat.render_body import render_body

TRANSLATION = Translation(
    read_prompt=read_prompt, write_prompt=write_prompt, renderer=ChatRenderer, render_body=render_body
)
