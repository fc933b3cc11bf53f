"""The spans that a store's records call for, as a test expects them at a receiver."""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import Engine, select

from llm_proxy.archive.run_facts import RunTrees
from llm_proxy.archive.told import COLUMNS, TOLD, Record, items_of
from llm_proxy.records.tables import records, writers
from llm_proxy.telemetry.items import Item
from llm_proxy.telemetry.settings import SpanSettings
from llm_proxy.telemetry.spans import spans_of

POLICY = {
    "policy": {"id": "p", "version": 1},
    "on_deny": "replace",
    "tools": {
        "order_read": {"effect": "read", "tier": "autonomous", "result": {}, "args": {"type": "object"}},
        "refund": {"effect": "write", "tier": "prohibited"},
    },
}
"""One tool that runs and one that never does: each has a span."""
NEVER_OPEN = {"failures": 1000}
"""A breaker: runs that are ahead fail on purpose, which must not refuse those that are behind."""


def told_items(engine: Engine) -> list[Item]:
    """Everything in the store that spans tell."""
    c = records.c
    with engine.connect() as connection:
        query = select(*COLUMNS).where(c.kind.in_(TOLD)).order_by(c.writer, c.seq)
        rows = [Record(*row) for row in connection.execute(query)]
        return items_of(connection, rows, RunTrees())


def expected_spans(engine: Engine, settings: SpanSettings | None = None) -> dict[bytes, Span]:
    """Whole spans by their ids; AssertionError where two are of one id."""
    spans = [s for item in told_items(engine) for s in spans_of(item, settings or SpanSettings())]
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "two spans have one id"
    return by_id


def unsent(engine: Engine) -> int:
    """Records that the exporter has not passed yet."""
    with engine.connect() as connection:
        rows = connection.execute(select(writers.c.head_seq, writers.c.exported_seq)).all()
    return sum(row.head_seq - row.exported_seq for row in rows)
