"""A response taken apart into the events that OpenAI's Responses API streams it in.

Source: the API reference's streaming events.
"""

from __future__ import annotations

from collections.abc import Iterator

from llm_proxy.scripted.request import ScriptedRequest
from llm_proxy.scripted.responses import finished, items, unfinished
from llm_proxy.scripted.script import ErrorScript, JsonObject, Turn
from llm_proxy.scripted.text import ARGUMENT_PIECES, event, pieces

MALFORMED = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"\n\n'


def frames(turn: Turn, request: ScriptedRequest) -> tuple[bytes, ...]:
    """Events, numbered from 0: created, in_progress, those of each item, and completed or incomplete.

    An error is an `error` event, and then `response.failed`. There is no `[DONE]`.
    """
    return tuple(
        event(kind, {"type": kind, "sequence_number": number} | fields)
        for number, (kind, fields) in enumerate(_events(turn, request))
    )


_Event = tuple[str, JsonObject]


def _events(turn: Turn, request: ScriptedRequest) -> Iterator[_Event]:
    begun = unfinished(turn, request, "in_progress")
    yield "response.created", {"response": begun}
    yield "response.in_progress", {"response": begun}
    for index, item in enumerate(items(turn, request)):
        place: JsonObject = {"output_index": index, "item_id": item["id"]}
        yield "response.output_item.added", {"output_index": index, "item": _added(item)}
        yield from _inside(item, place, turn.deltas)
        yield "response.output_item.done", {"output_index": index, "item": item}
    if turn.error is not None:
        yield from _failed(turn.error, begun)
        return
    ended = finished(turn, request)
    yield f"response.{ended['status']}", {"response": ended}


def _failed(error: ErrorScript, begun: JsonObject) -> Iterator[_Event]:
    said: JsonObject = {"message": error.message, "param": error.param}
    yield "error", {"error": {"type": error.type, "code": error.code} | said}
    why: JsonObject = {"code": error.code or error.type, "message": error.message}
    yield "response.failed", {"response": {**begun, "status": "failed", "error": why}}


def _added(item: JsonObject) -> JsonObject:
    """An item as it begins: in progress, and empty."""
    begun = item | {"status": "in_progress"}
    match item["type"]:
        case "reasoning":
            return {"id": item["id"], "type": "reasoning", "summary": []}
        case "message":
            return {**begun, "content": []}
        case "function_call":
            return {**begun, "arguments": ""}
        case "custom_tool_call":
            return {**begun, "input": ""}
        case _:
            return begun


def _inside(item: JsonObject, place: JsonObject, split: int | None) -> Iterator[_Event]:
    """What happens between an item's start and its end."""
    match item:
        case {"type": "reasoning", "content": [{"text": str(text)}]}:
            yield from _reasoning_text(text, place, split)
        case {"type": "reasoning", "summary": list(parts)}:
            for index, part in enumerate(parts):
                yield from _summary(part, {**place, "summary_index": index}, split)
        case {"type": "message", "content": list(parts)}:
            for index, part in enumerate(parts):
                yield from _part(part, {**place, "content_index": index}, split)
        case {"type": "function_call", "arguments": str(text), "name": name}:
            kind = "response.function_call_arguments"
            yield from _deltas(kind, text, place, ARGUMENT_PIECES)
            yield f"{kind}.done", {**place, "arguments": text, "name": name}
        case {"type": "custom_tool_call", "input": str(text)}:
            kind = "response.custom_tool_call_input"
            yield from _deltas(kind, text, place, split)
            yield f"{kind}.done", {**place, "input": text}
        case {"type": "web_search_call"}:
            for step in ("in_progress", "searching", "completed"):
                yield f"response.web_search_call.{step}", place
        case _:
            return


def _deltas(kind: str, text: str, place: JsonObject, split: int | None) -> Iterator[_Event]:
    for piece in pieces(text, split):
        yield f"{kind}.delta", {**place, "delta": piece}


def _reasoning_text(text: str, place: JsonObject, split: int | None) -> Iterator[_Event]:
    there = {**place, "content_index": 0}
    begun: JsonObject = {"type": "reasoning_text", "text": ""}
    yield "response.content_part.added", {**there, "part": begun}
    yield from _deltas("response.reasoning_text", text, there, split)
    yield "response.reasoning_text.done", {**there, "text": text}
    yield "response.content_part.done", {**there, "part": {**begun, "text": text}}


def _summary(part: object, place: JsonObject, split: int | None) -> Iterator[_Event]:
    match part:
        case {"text": str(text)}:
            begun: JsonObject = {"type": "summary_text", "text": ""}
            yield "response.reasoning_summary_part.added", {**place, "part": begun}
            yield from _deltas("response.reasoning_summary_text", text, place, split)
            yield "response.reasoning_summary_text.done", {**place, "text": text}
            yield "response.reasoning_summary_part.done", {**place, "part": {**begun, "text": text}}
        case _:
            return


def _part(part: object, place: JsonObject, split: int | None) -> Iterator[_Event]:
    match part:
        case {"type": "output_text", "text": str(text)}:
            begun: JsonObject = {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}
            yield "response.content_part.added", {**place, "part": begun}
            yield from _deltas("response.output_text", text, {**place, "logprobs": []}, split)
            yield "response.output_text.done", {**place, "text": text, "logprobs": []}
            yield "response.content_part.done", {**place, "part": {**begun, "text": text}}
        case {"type": "refusal", "refusal": str(text)}:
            empty: JsonObject = {"type": "refusal", "refusal": ""}
            yield "response.content_part.added", {**place, "part": empty}
            yield from _deltas("response.refusal", text, place, split)
            yield "response.refusal.done", {**place, "refusal": text}
            yield "response.content_part.done", {**place, "part": {**empty, "refusal": text}}
        case _:
            return
