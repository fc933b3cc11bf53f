"""May a call spend? Limits over windows, and a ledger that holds before a call and settles after it.

Knows nothing of models or HTTP. Integers only: money is micro-dollars, time is Unix microseconds.
"""

from budgets.amounts import UNITS, ZERO, Amount, Unit, micro_usd
from budgets.decide import TOMBSTONE_US, LedgerBroken, decide, needs
from budgets.ledger import (
    Counter,
    Crossed,
    Expire,
    Expired,
    ExpiredHold,
    Held,
    Hold,
    Late,
    Left,
    Op,
    Refused,
    Renew,
    Renewed,
    Result,
    Settle,
    Settled,
    Take,
    Taken,
)
from budgets.limits import Bound, Limit, LimitBook, OnExceed
from budgets.memory_store import MemoryStore
from budgets.scopes import RunRef, Scope, Subject
from budgets.sql_store import METADATA, SqlLedger, SqlStore, tables
from budgets.store import LedgerStore
from budgets.tightest import remaining
from budgets.windows import AT_ONCE, WINDOWS, Window, WindowSpan, window_named

__all__ = [
    "AT_ONCE",
    "METADATA",
    "TOMBSTONE_US",
    "UNITS",
    "WINDOWS",
    "ZERO",
    "Amount",
    "Bound",
    "Counter",
    "Crossed",
    "Expire",
    "Expired",
    "ExpiredHold",
    "Held",
    "Hold",
    "Late",
    "LedgerBroken",
    "LedgerStore",
    "Left",
    "Limit",
    "LimitBook",
    "MemoryStore",
    "OnExceed",
    "Op",
    "Refused",
    "Renew",
    "Renewed",
    "Result",
    "RunRef",
    "Scope",
    "Settle",
    "Settled",
    "SqlLedger",
    "SqlStore",
    "Subject",
    "Take",
    "Taken",
    "Unit",
    "Window",
    "WindowSpan",
    "decide",
    "micro_usd",
    "needs",
    "remaining",
    "tables",
    "window_named",
]
