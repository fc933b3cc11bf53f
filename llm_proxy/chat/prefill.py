"""A prompt whose reply is begun already: the model goes on with the words that it is given as its own."""

from __future__ import annotations

from msgspec import structs

from llm_proxy.chat.prompt import Message, Prompt, Role, TextPart


def begun(prompt: Prompt, text: str) -> Prompt:
    """The prompt with `text` as the assistant's last words, behind any that it ends with."""
    words = TextPart(text=text)
    *before, last = prompt.messages or (None,)
    if last is not None and last.role is Role.ASSISTANT:
        messages = (*before, structs.replace(last, parts=(*last.parts, words)))
    else:
        messages = (*prompt.messages, Message(role=Role.ASSISTANT, parts=(words,)))
    return structs.replace(prompt, messages=messages)
