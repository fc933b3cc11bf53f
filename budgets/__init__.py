"""May a call spend? Limits over windows, and a ledger that holds before a call and settles after it.

Knows nothing of models or HTTP. Integers only: money is micro-dollars, time is Unix microseconds.
"""

from budgets.amounts import MICRO, UNITS, ZERO, Amount, Unit, micro_usd
from budgets.decide import TOMBSTONE_US, LedgerBroken, decide, needs
from budgets.ledger import (
    Correct,
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
    TopUp,
)
from budgets.limits import Bound, Limit, LimitBook, OnExceed
from budgets.memory_store import MemoryStore
from budgets.rolling import ROLLING, Rolling, rolling_us
from budgets.scopes import RunRef, Scope, Subject
from budgets.spans import Buckets, WindowSpan
from budgets.sql_store import METADATA, Ended, SqlLedger, SqlStore, tables
from budgets.store import LedgerStore
from budgets.tightest import counted, remaining
from budgets.windows import AT_ONCE, WINDOWS, Window, ended_us, window_named

__all__ = [
    "AT_ONCE",
    "METADATA",
    "MICRO",
    "ROLLING",
    "TOMBSTONE_US",
    "UNITS",
    "WINDOWS",
    "ZERO",
    "Amount",
    "Bound",
    "Buckets",
    "Correct",
    "Counter",
    "Crossed",
    "Ended",
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
    "Rolling",
    "RunRef",
    "Scope",
    "Settle",
    "Settled",
    "SqlLedger",
    "SqlStore",
    "Subject",
    "Take",
    "Taken",
    "TopUp",
    "Unit",
    "Window",
    "WindowSpan",
    "counted",
    "decide",
    "ended_us",
    "micro_usd",
    "needs",
    "remaining",
    "rolling_us",
    "tables",
    "window_named",
]
