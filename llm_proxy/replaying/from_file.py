"""A run to replay from a file of `runs export --content`: no store is needed."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llm_proxy.admin.run_export import FORMAT, VERSION
from llm_proxy.records.view import CallView, Problem, Status
from llm_proxy.replaying.recorded import NotReplayable, Run, run_of
from llm_proxy.wire.dialects import DIALECTS

MOST_LINE = 256 << 20


class _Content(msgspec.Struct, frozen=True):
    text: str | None = None
    base64: str | None = None

    def data(self) -> bytes:
        if self.text is not None:
            return self.text.encode()
        return base64.b64decode(self.base64 or "", validate=True)


class _Line(msgspec.Struct, frozen=True):
    type: str


class _Head(msgspec.Struct, frozen=True):
    format: str
    version: int
    run_id: str
    agent_id: str
    content: bool


class _Call(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay needs of a call."""

    id: str
    run_id: str
    agent_id: str
    started_us: int
    status: Status
    dialect: str
    stream: bool
    model: str
    served_model: str = ""
    first_event_s: float | None = None
    total_s: float | None = None
    problem: Problem | None = None
    masked: bool = False
    kept: bool = True
    request: _Content | None = None
    emitted: _Content | None = None
    released: _Content | None = None

    def view(self) -> CallView:
        request, emitted, released = (
            each.data() if each is not None else None for each in (self.request, self.emitted, self.released)
        )
        return CallView(
            id=self.id,
            run_id=self.run_id,
            agent_id=self.agent_id,
            started_us=self.started_us,
            status=self.status,
            dialect=self.dialect,
            stream=self.stream,
            model=self.model,
            served_model=self.served_model,
            first_event_s=self.first_event_s,
            total_s=self.total_s,
            problem=self.problem,
            masked=self.masked,
            kept=self.kept,
            request=request,
            emitted=emitted,
            released=released,
        )


_type = msgspec.json.Decoder(_Line).decode
_head = msgspec.json.Decoder(_Head).decode
_call = msgspec.json.Decoder(_Call).decode


def run_in(file: Path, run_id: str | None = None, agent: str | None = None) -> Run:
    """The exported run, or one of those below it that were exported too. Raises `NotReplayable`."""
    try:
        with file.open("rb") as lines:
            head = _opening(file, lines.readline(MOST_LINE))
            of = run_id or head.run_id, agent or (None if run_id else head.agent_id)
            return run_of(of[0], of[1] or head.agent_id, _views(file, lines, *of))
    except OSError as error:
        raise NotReplayable(f"{file} can't be read: {error.strerror or error}.") from error


def _opening(file: Path, line: bytes) -> _Head:
    try:
        head = _head(line) if _type(line).type == "export" else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        head = None
    if head is None or head.format != FORMAT or head.version != VERSION:
        raise NotReplayable(f"{file} is no export of this version: make it with `llm-proxy runs export RUN`.")
    if not head.content:
        raise NotReplayable(f"{file} was exported without its content: export it anew with --content.")
    return head


def _views(file: Path, lines: Iterator[bytes], run_id: str, agent: str | None) -> Iterator[CallView]:
    kind, found = "", None
    for number, line in enumerate(lines, 2):
        try:
            kind = _type(line).type
            if kind != "call":
                continue
            call = _call(line)
            if call.run_id != run_id or agent not in (None, call.agent_id):
                continue
            if found not in (None, call.agent_id):
                raise NotReplayable(f"Several agents have a run {run_id!r} in {file}: name one with --agent.")
            found = call.agent_id
            if call.dialect in DIALECTS:
                yield call.view()
        except (msgspec.DecodeError, UnicodeError, binascii.Error) as error:
            raise NotReplayable(f"{file}:{number}: it is no line of an export: {error}.") from error
    if kind != "end":
        raise NotReplayable(f"{file} was cut off: export the run anew.")
