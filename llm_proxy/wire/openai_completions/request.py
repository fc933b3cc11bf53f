"""OpenAI legacy completions, the request: parse it once into the fields that are acted on."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.asked import MAX_CHOICES, MAX_TOKENS, Metadata, StreamOptions, bounded, run_and_user
from llm_proxy.wire.document import inner_spans, read_document
from llm_proxy.wire.openai_completions.prompts import Prompts, read_prompts
from llm_proxy.wire.request import WireRequest


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: int | None = None
    stream_options: StreamOptions | None = None
    metadata: Metadata | None = None
    user: str | None = None


_body = msgspec.json.Decoder(_Body).decode


def parse(body: bytes) -> WireRequest:
    """Read a request body. Raises `ProxyError` (invalid_request) that names the place and the remedy.

    `n` is how many completions are generated and paid for: the greater of `n` and `best_of` for each prompt
    (a request without any has one, the end-of-text token). Where `max_tokens` is absent there is no cap,
    since OpenAI's default of 16 is not every server's; 0 asks for nothing but the prompt's log probabilities.
    """
    spans, typed = read_document(body, _body)
    if typed.stream_options:
        inner_spans(body, "stream_options", spans["stream_options"])
    prompts = read_prompts(body, "prompt", spans["prompt"]) if "prompt" in spans else Prompts((), 0)
    max_output = bounded("max_tokens", typed.max_tokens, MAX_TOKENS, 0)
    choices = bounded("n", typed.n, MAX_CHOICES) or 1
    generated = bounded("best_of", typed.best_of, MAX_CHOICES) or 1
    run, user = run_and_user(typed.metadata, typed.user)
    return WireRequest(
        body=body,
        model=typed.model,
        stream=bool(typed.stream),
        n=max(choices, generated) * max(prompts.number, 1),
        messages=tuple([body[start:end] for start, end in prompts.spans]),
        message_spans=prompts.spans,
        messages_key="prompt",
        spans=spans,
        max_output=max_output,
        cap_fields=() if max_output is None else ("max_tokens",),
        include_usage=bool(typed.stream_options and typed.stream_options.include_usage),
        user=user,
        run=run,
    )
