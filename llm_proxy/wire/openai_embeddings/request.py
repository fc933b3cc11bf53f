"""OpenAI embeddings, the request: parse it once into the fields that are acted on."""

from __future__ import annotations

import msgspec

from llm_proxy.wire.asked import Metadata, run_and_user
from llm_proxy.wire.document import read_document
from llm_proxy.wire.faults import invalid
from llm_proxy.wire.openai_chat import upstream
from llm_proxy.wire.openai_completions.prompts import read_prompts
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit


class _Body(msgspec.Struct):
    model: str
    metadata: Metadata | None = None
    user: str | None = None


_body = msgspec.json.Decoder(_Body).decode


def parse(body: bytes) -> WireRequest:
    """Read a request body. Raises `ProxyError` (invalid_request) that names the place and the remedy.

    Its messages are its inputs. No tokens come out, so `max_output` is 0.
    """
    spans, typed = read_document(body, _body)
    if "input" not in spans:
        raise invalid("input is missing: add it to the request body", "input")
    inputs = read_prompts(body, "input", spans["input"], objects=True)
    if not inputs.number:
        raise invalid("input is null: send at least one", "input")
    run, user = run_and_user(typed.metadata, typed.user)
    return WireRequest(
        body=body,
        model=typed.model,
        messages=tuple([body[start:end] for start, end in inputs.spans]),
        message_spans=inputs.spans,
        messages_key="input",
        spans=spans,
        max_output=0,
        user=user,
        run=run,
    )


def upstream_edits(
    request: WireRequest, model: str, cap: tuple[str, int] | None = None, *, ask_usage: bool = False
) -> list[Edit]:
    """The model's name at the target; there is no completion to cap and no stream to end with usage."""
    return upstream.upstream_edits(request, model)
