"""Anthropic Messages as one side of a translation."""

from __future__ import annotations

from llm_proxy.wire.anthropic_messages.prompt_read import read_prompt
from llm_proxy.wire.anthropic_messages.prompt_write import write_prompt
from llm_proxy.wire.anthropic_messages.render import MessagesRenderer
from llm_proxy.wire.anthropic_messages.render_body import render_body
from llm_proxy.wire.anthropic_messages.render_parts import call_id
from llm_proxy.wire.dialect import Translation

TRANSLATION = Translation(
    read_prompt=read_prompt,
    write_prompt=write_prompt,
    renderer=MessagesRenderer,
    render_body=render_body,
    call_id=call_id,
    trims_ending=True,
)
