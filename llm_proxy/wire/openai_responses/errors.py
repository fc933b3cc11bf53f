"""OpenAI Responses, errors: the body that all of OpenAI's API shares, and the event that ends a stream."""

from __future__ import annotations

from llm_proxy.errors import ProxyError
from llm_proxy.wire.members import members, to_object
from llm_proxy.wire.openai_chat import errors as shared
from llm_proxy.wire.openai_chat.errors import error_body
from llm_proxy.wire.sse import read_one, render

__all__ = ["error_body", "error_frame"]


def error_frame(error: ProxyError) -> bytes:
    """The `error` event that ends a stream which can't go on.

    Its fields are those of the `ResponseErrorEvent`; `error` repeats them, since official SDKs raise their
    APIError for data with that key. The number in the sequence is not known here: it is 0.
    """
    detail = members(read_one(shared.error_frame(error)).data)["error"]
    fields = members(detail)
    event = {
        "type": b'"error"',
        "sequence_number": b"0",
        "code": fields["code"],
        "message": fields["message"],
        "param": fields["param"],
        "error": detail,
    }
    return render(to_object(event), "error")
