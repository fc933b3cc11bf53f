"""What the stages of a call lean on, put together once by the composition root."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from llm_proxy.admission import Admission
from llm_proxy.asking import Approvals
from llm_proxy.body_room import Bodies
from llm_proxy.call_log import CallLog
from llm_proxy.census import Census
from llm_proxy.counting.error import TokenErrors
from llm_proxy.counting.lengths import ReplyLengths
from llm_proxy.identity.access import Access
from llm_proxy.inspecting import Inspector
from llm_proxy.intake import Reader
from llm_proxy.judge import Rules
from llm_proxy.offering import Offering
from llm_proxy.outgoing import Composer
from llm_proxy.reactions.alerts import Alerts
from llm_proxy.receipts.issue import Receipts
from llm_proxy.recording import Recorder
from llm_proxy.records.responses import StoredResponse
from llm_proxy.records.writer import Writer
from llm_proxy.runs.desk import RunDesk
from llm_proxy.runs.lookup import RunLookup
from llm_proxy.runs.stitched import Stitcher
from llm_proxy.runs.tree import RunTree
from llm_proxy.settle import Settler
from llm_proxy.standing import Standing
from llm_proxy.telemetry.metrics import Metrics
from llm_proxy.topup import TopUps
from llm_proxy.turns import Turns
from llm_proxy.unseen import UnseenTurns
from llm_proxy.upstream.provider import Upstreams
from routing.fleet import Fleet
from routing.targets import RouteTable


class Earlier(Protocol):
    """A conversation so far: its items, and the tokens of all of it."""

    @property
    def items(self) -> tuple[bytes, ...]: ...

    @property
    def tokens(self) -> int: ...


@dataclass(slots=True)
class Services:
    """Everything one worker owns. `rules` may be replaced between calls; a call keeps what it began with."""

    access: Access
    standing: Standing
    census: Census
    call_log: CallLog | None
    """None where ended calls have no line in the log."""
    runs: RunTree
    desk: RunDesk
    lookup: RunLookup
    stitcher: Stitcher
    inspector: Inspector
    recorder: Recorder
    unseen: UnseenTurns
    receipts: Receipts
    routes: RouteTable
    fleet: Fleet
    reader: Reader
    admission: Admission
    approvals: Approvals
    settler: Settler
    errors: TokenErrors
    lengths: ReplyLengths | None
    """None where no model's streams hold less than their worst case."""
    topups: TopUps
    alerts: Alerts
    writer: Writer
    upstreams: Upstreams
    composer: Composer
    offering: Offering
    stored: Callable[[str, str], Awaitable[StoredResponse | None]]
    """A response by its id, if the agent was given it."""
    recall: Callable[[str, str], Awaitable[Earlier | None]]
    """What an agent said and heard up to a response that it names."""
    metrics: Metrics
    rules: Rules | None
    active: dict[str, int]
    """The worker's open calls and when they began (Unix µs): their holds are kept alive."""
    environment: str
    turns: Turns
    now_us: Callable[[], int]
    random: Callable[[], float]
    max_body: int
    bodies: Bodies
    default_model: str | None
    """The model whose target serves paths that name none."""
    strict: bool
