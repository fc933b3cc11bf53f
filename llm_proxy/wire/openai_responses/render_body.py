"""OpenAI Responses, a whole reply written from neutral events."""

from __future__ import annotations

from collections.abc import Sequence

from llm_proxy.chat.blocks import Choice, RefusalBlock, fold_blocks
from llm_proxy.chat.events import Event, Refusal, Text
from llm_proxy.wire.dialect import About
from llm_proxy.wire.openai_responses.render_items import COMPLETED, INCOMPLETE, output_items
from llm_proxy.wire.openai_responses.render_response import Shape, incomplete_reason


def render_body(events: Sequence[Event], about: About) -> bytes:
    """The response object. Only the first choice is written: a request of this dialect asks for no more."""
    folded = fold_blocks([event for event in events if not is_silent(event)])
    shape = Shape(about)
    shape.model = folded.model or shape.model
    choice = next((choice for choice in folded.choices if choice.index == 0), Choice(index=0, blocks=[]))
    refused = any(isinstance(block, RefusalBlock) for block in choice.blocks)
    why = incomplete_reason(choice.finish, refused=refused)
    output = output_items(choice.blocks, shape.places, shape.ids, cut=bool(why))
    return shape.response(INCOMPLETE if why else COMPLETED, output, folded.usage, why)


def is_silent(event: Event) -> bool:
    """Whether it is text without any: some servers open and close a stream with it."""
    return isinstance(event, Text | Refusal) and not event.text
