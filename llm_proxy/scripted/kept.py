"""The responses that the vendor keeps, for `previous_response_id`, for item ids and to be fetched."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from llm_proxy.scripted.request import RequestError, ScriptedRequest, Talk
from llm_proxy.scripted.responses import finished, response_id, told
from llm_proxy.scripted.responses_request import check_answers
from llm_proxy.scripted.script import Turn
from llm_proxy.scripted.text import pretty

_MOST = 1000


@dataclass(frozen=True, slots=True)
class _Kept:
    body: bytes
    talk: Talk
    items: frozenset[str]


class KeptResponses:
    """The last 1000 responses to requests that didn't say `store: false`."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def clear(self) -> None:
        self._kept.clear()

    def keep(self, turn: Turn, request: ScriptedRequest) -> None:
        """Keep what this turn answers. `request` is the continued one."""
        response = finished(turn, request)
        items = msgspec.convert(response["output"], list[_Identified])
        kept = _Kept(
            pretty(response), request.talk.then(told(turn, request)), frozenset(item.id for item in items)
        )
        while len(self._kept) >= _MOST:
            del self._kept[next(iter(self._kept))]
        self._kept[response_id(request)] = kept

    def body(self, id_: str) -> bytes | None:
        """The finished response; None where none was kept under this id."""
        kept = self._kept.get(id_)
        return None if kept is None else kept.body

    def forget(self, id_: str) -> bool:
        """Whether there was one."""
        return self._kept.pop(id_, None) is not None

    def continued(self, request: ScriptedRequest) -> ScriptedRequest:
        """The request with what went before it. RequestError where that isn't known here."""
        for id_ in request.known_items:
            if not any(id_ in kept.items for kept in self._kept.values()):
                raise RequestError(
                    f"Item with id '{id_}' not found. Items are not persisted when `store` is set to false. "
                    "Try again with `store` set to true, or remove this item from your input.",
                    code="invalid_request_error",
                    param="input",
                    status=404,
                )
        if not request.previous:
            return request
        before = self._kept.get(request.previous)
        if before is None:
            raise RequestError(
                f"Previous response with id '{request.previous}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )
        talk = before.talk.then(request.talk)
        check_answers(talk)
        return msgspec.structs.replace(request, talk=talk)


class _Identified(msgspec.Struct):
    id: str
