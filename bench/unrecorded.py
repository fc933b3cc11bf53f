"""The proxy without its records, for `bench.recording` to compare with: `python -m bench.unrecorded serve …`.

Calls are identified, budgeted, judged and carried as ever, and their holds and settlements are committed as
ever. What a record takes is left out: nothing is looked through for secrets, taken apart, hashed into the
chain, compressed or inserted, and so nothing is exported.
"""

from __future__ import annotations

from typing import Any

from llm_proxy import journal, worker
from llm_proxy.cli.main import app
from llm_proxy.exchange import Exchange
from llm_proxy.journal.rows import run_row
from llm_proxy.judging import Rules
from llm_proxy.recording import Recorder
from llm_proxy.records.evidence import NOTHING, Evidence


def _begun(exchange: Exchange, *, begins: bool = True) -> Evidence:
    """The run, whose state a policy needs, and nothing of the call."""
    return Evidence(runs=(run_row(exchange),) if begins else ())


def _nothing(*_: Any) -> Evidence:
    return NOTHING


class Unrecording(Recorder):
    """Keeps nothing, and looks at nothing."""

    def closing(self, exchange: Exchange) -> None:
        del exchange

    async def request(self, exchange: Exchange, rules: Rules | None) -> None:
        del exchange, rules


def main() -> None:
    journal.opened, journal.closed, journal.refused = _begun, _nothing, _nothing
    worker.Recorder = Unrecording
    app()


if __name__ == "__main__":
    main()
