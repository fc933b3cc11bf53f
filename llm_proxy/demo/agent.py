"""The demo's agent: an ordinary tool loop on the official OpenAI SDK. Its `base_url` is the proxy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from openai import DefaultHttpxClient, OpenAI
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionMessage,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
    ChatCompletionMessageToolCallUnionParam,
)

from llm_proxy.demo.tools import DECLARATIONS, Desk

MODEL = "support-model"
MAX_TURNS = 8
INSTRUCTIONS = "You are a support agent. Use the tools you have, and be honest about what you did."
TASK = (
    "Ticket T-881 from customer C-2041: “My coffee machine (order A-1042) came with a cracked water tank. "
    "I would like my money back, not a new one.”"
)


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply as the agent received it; `tools` are the calls it then ran."""

    streamed: bool
    text: str
    tools: tuple[str, ...]


def run_agent(base_url: str, api_key: str, run_id: str, desk: Desk) -> Iterator[Turn]:
    """Works on the task until the model proposes no more tool calls. Every second reply is streamed.

    Raises `openai.OpenAIError`, also where the proxy refuses.
    """
    headers = {"x-run-id": run_id, "x-user-id": "C-2041"}
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": TASK},
    ]
    # A proxy that the environment names is for the world outside, not for this machine.
    http = DefaultHttpxClient(trust_env=False)
    with OpenAI(base_url=base_url, api_key=api_key, default_headers=headers, http_client=http) as client:
        for number in range(MAX_TURNS):
            streamed = number % 2 == 1
            message = _ask(client, messages, streamed=streamed)
            calls = [
                c for c in message.tool_calls or () if isinstance(c, ChatCompletionMessageFunctionToolCall)
            ]
            yield Turn(streamed, message.content or "", tuple(call.function.name for call in calls))
            if not calls:
                return
            messages.append(_sent_back(message, calls))
            for call in calls:
                result = desk.call(call.function.name, call.function.arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})


def _ask(
    client: OpenAI, messages: list[ChatCompletionMessageParam], *, streamed: bool
) -> ChatCompletionMessage:
    if not streamed:
        whole = client.chat.completions.create(model=MODEL, messages=messages, tools=DECLARATIONS)
        return whole.choices[0].message
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=DECLARATIONS) as stream:
        return stream.get_final_completion().choices[0].message


def _sent_back(
    message: ChatCompletionMessage, calls: list[ChatCompletionMessageFunctionToolCall]
) -> ChatCompletionAssistantMessageParam:
    """The reply as it stands in the history of the next request."""
    tool_calls: list[ChatCompletionMessageToolCallUnionParam] = [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.function.name, "arguments": call.function.arguments},
        }
        for call in calls
    ]
    return {"role": "assistant", "content": message.content, "tool_calls": tool_calls}
