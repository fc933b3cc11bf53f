"""Spans in packs that fit a request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.settings import SpanSettings, resource_of, scope_of
from llm_proxy.telemetry.spans import spans_of


@dataclass(frozen=True, slots=True)
class Packed:
    """A span, what it tells, and its size in bytes."""

    item: Item
    span: Span
    size: int
    refused: int = 0
    """How many times it was refused without its content; 0 while it's whole."""


class Packer:
    """Makes items into requests of at most `most` bytes each, or of one span that is larger by itself."""

    def __init__(self, settings: SpanSettings, most: int) -> None:
        self._settings, self._most = settings, most
        self._resource, self._scope = resource_of(settings), scope_of(settings)

    def whole(self, item: Item) -> list[Packed]:
        return [Packed(item, span, span.ByteSize()) for span in spans_of(item, self._settings)]

    def trimmed(self, packed: Packed) -> Packed:
        """The same span without content."""
        spans = spans_of(packed.item, self._settings.without_content())
        (span,) = [span for span in spans if span.span_id == packed.span.span_id]
        return Packed(packed.item, span, span.ByteSize(), 1)

    def packs(self, spans: Iterable[Packed]) -> Iterator[list[Packed]]:
        """In order."""
        pack: list[Packed] = []
        size = 0
        for packed in spans:
            if pack and size + packed.size > self._most:
                yield pack
                pack, size = [], 0
            pack.append(packed)
            size += packed.size
        if pack:
            yield pack

    def request(self, pack: Sequence[Packed]) -> ExportTraceServiceRequest:
        scoped = ScopeSpans(scope=self._scope, spans=(packed.span for packed in pack))
        whole = ResourceSpans(resource=self._resource, scope_spans=(scoped,))
        return ExportTraceServiceRequest(resource_spans=(whole,))
