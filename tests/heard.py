"""What the user of the official SDK has of one call in the end: the text, or the SDK's own error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import openai

from tests.proxy import ask


@dataclass
class Heard:
    """Text, perhaps an error, and the call's id."""

    call_id: str
    text: str = ""
    error: openai.APIError | None = None
    headers: Any = None

    @property
    def told(self) -> tuple[int | None, str | None]:
        """The error's status (None for one inside a stream) and code."""
        assert self.error is not None, f"the SDK saw success: {self.text!r}"
        return getattr(self.error, "status_code", None), self.error.code


async def hear(sdk: openai.AsyncOpenAI, model: str, *, stream: bool) -> Heard:
    """One call, read to its end."""
    try:
        raw = await sdk.chat.completions.with_raw_response.create(**ask(model=model, stream=stream))
    except openai.APIStatusError as error:
        return Heard(error.response.headers["x-call-id"], error=error, headers=error.response.headers)
    heard = Heard(raw.headers["x-call-id"], headers=raw.headers)
    if not stream:
        heard.text = raw.parse().choices[0].message.content or ""
        return heard
    try:
        async for chunk in raw.parse():
            for choice in chunk.choices:
                heard.text += choice.delta.content or ""
    except openai.APIError as error:
        heard.error = error
    return heard
