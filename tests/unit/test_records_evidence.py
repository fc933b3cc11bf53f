"""What fits a column, and what a store's error means for a batch."""

from __future__ import annotations

import sqlite3

import psycopg.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted

from llm_proxy.records.columns import column
from llm_proxy.records.evidence import tool_call_key
from llm_proxy.records.faults import Fault, fault_of
from llm_proxy.records.statements import RunChanged


@given(st.text())
def test_a_column_takes_any_text(text: str) -> None:
    kept = column(text, 10)
    assert len(kept) <= 10
    assert "\0" not in kept
    if len(text) <= 10 and "\0" not in text:
        assert kept == text


@given(st.text(max_size=400), st.text(max_size=400))
def test_tool_call_keys_fit_and_tell_ids_apart(one: str, two: str) -> None:
    assert len(tool_call_key(one)) <= 256
    assert "\0" not in tool_call_key(one)
    assert (tool_call_key(one) == tool_call_key(two)) is (one == two)


def test_an_id_that_differs_only_at_its_end_is_another() -> None:
    assert tool_call_key("x" * 5000 + "a") != tool_call_key("x" * 5000 + "b")
    assert tool_call_key("call_1") == "call_1"


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (RunChanged(), Fault.RACED),
        (OperationalError("", None, psycopg.errors.DeadlockDetected()), Fault.RACED),
        (OperationalError("", None, psycopg.errors.SerializationFailure()), Fault.RACED),
        (OperationalError("", None, psycopg.errors.AdminShutdown()), Fault.DOWN),
        (OperationalError("", None, sqlite3.OperationalError("database is locked")), Fault.DOWN),
        (DatabaseError("", None, sqlite3.DatabaseError("database disk image is malformed")), Fault.DOWN),
        (InternalError("", None, psycopg.errors.ReadOnlySqlTransaction()), Fault.DOWN),
        (PoolExhausted(), Fault.DOWN),
        (OSError("no space left"), Fault.DOWN),
        (IntegrityError("", None, psycopg.errors.UniqueViolation()), Fault.OWN),
        (DataError("", None, psycopg.errors.NumericValueOutOfRange()), Fault.OWN),
        (DataError("", None, psycopg.DataError(), connection_invalidated=True), Fault.DOWN),
        (ValueError(), Fault.OWN),
        (StopIteration(), Fault.OWN),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_an_error_means(error: Exception, fault: Fault) -> None:
    assert fault_of(error) is fault
