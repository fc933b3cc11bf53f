"""What one call has seen so far: filled stage by stage, read by the record when the call ends."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from budgets import ZERO, Amount, Bound, Left, Refused
from llm_proxy.chat.events import Usage
from llm_proxy.chat.prompt import Prompt
from llm_proxy.chat.reply import Assembly
from llm_proxy.errors import ProxyError
from llm_proxy.identity.caller import Caller
from llm_proxy.identity.headers import Hints
from llm_proxy.identity.lineage import ALONE, Lineage
from llm_proxy.intake import Intake
from llm_proxy.offer import Offer
from llm_proxy.pricing.price import NO_UNITS
from llm_proxy.recorded import Ending, Taken
from llm_proxy.records.audit_rows import PrefixRow, TraceRow
from llm_proxy.records.blobs import Addressed
from llm_proxy.records.policy_rows import UnseenRow
from llm_proxy.records.responses import StoredResponse
from llm_proxy.records.view import Attempt, CostLabel, Decision, Problem, Status, ToolResultView
from llm_proxy.redacting.masking import Guard
from llm_proxy.redacting.recorded import RecordMask
from llm_proxy.redacting.rules import Redaction
from llm_proxy.redacting.scanned import Scanned
from llm_proxy.resume import Resume
from llm_proxy.rounds import Round
from llm_proxy.stitching import Thread
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.passthrough import Units
from llm_proxy.wire.request import WireRequest
from llm_proxy.wire.spans import Edit


@dataclass(slots=True)
class Spent:
    """What a call used, as far as it's known, and how well it's known."""

    usage: Usage = field(default_factory=Usage)
    micro_usd: int = 0
    label: CostLabel | None = None
    price: str = ""
    """The version of the price that it was counted with."""
    tier: str = ""
    """The service tier, where it isn't the usual one."""
    told: bool = field(default=False, compare=False)
    """The upstream reported it, if not all of it: it's no guess."""
    heard: bool = field(default=False, compare=False)
    """It went into the reply, if not as its end: it's no loss."""


class Downgrade(msgspec.Struct, frozen=True):
    """`limits` had no room for `asked`, one after the other; the last names `model` to be asked instead."""

    limits: tuple[str, ...]
    asked: str
    model: str

    @property
    def limit(self) -> str:
        """The limits in order, as one text."""
        return ", ".join(self.limits)


@dataclass(slots=True)
class Exchange:
    """One call, from its first byte to its last. Seconds are since `clock0`, a `perf_counter` reading."""

    id: str
    started_us: int
    dialect: Dialect
    clock0: float
    caller: Caller | None = None
    hints: Hints = field(default_factory=Hints)
    body: bytes = b""
    request: WireRequest | None = None
    intake: Intake | None = None
    run_id: str = ""
    parent_run_id: str = ""
    user_id: str = ""
    user_verified: bool = False
    """The credential says so, not only the caller."""
    run_inferred: bool = False
    stitched: bool = False
    """It named no run, and goes on with the conversation of an earlier call's."""
    addressed: Addressed | None = None
    """Its messages, where their addresses are known already."""
    thread: Thread | None = None
    """The conversation of a call that named no run."""
    kept_thread: bytes = b""
    """Hash of the conversation that the vendor keeps, where such a call names it."""
    traced: TraceRow | None = None
    """Its run was seen in its trace, which isn't on record yet."""
    prefixes: tuple[PrefixRow, ...] = ()
    """What its conversation holds at its end."""
    placed: bool = False
    """Its run's place in the tree of runs is known."""
    lineage: Lineage = ALONE
    """The runs above this one, and what their envelopes and its own leave."""
    downgraded: Downgrade | None = None
    """A limit had no room for the model that was asked for, and names another."""
    policy: str = ""
    bounds: tuple[Bound, ...] = ()
    refused: Refused | None = None
    """Why the ledger held nothing for it."""
    held: Amount = ZERO
    """What the ledger has set aside for it by now."""
    topped_up: Amount = ZERO
    """The part of `held` that came behind the first hold."""
    left: tuple[Left, ...] = ()
    floor: Amount = ZERO
    opened: bool = False
    refusal_kept: bool = False
    """It never opened, and a record says why."""
    method: str = "POST"
    upstream_path: str = ""
    """Where the call goes below a base URL, where that isn't the dialect's own path."""
    query: str = ""
    """The request's query, which goes upstream where the dialect stays the same."""
    passed: Mapping[str, str] = field(default_factory=dict[str, str])
    """The caller's headers that go upstream where the dialect stays the same."""
    stored: StoredResponse | None = None
    """The response that the request goes on from, or fetches."""
    fetches: bool = False
    """It fetches that response and asks for no new one."""
    unsealed: bool = False
    """No seal is sent any more: a target could not open one."""
    whole: WireRequest | None = None
    """The request with everything in it that it goes on from, for targets that don't keep that response."""
    prompt: Prompt | None = None
    """The request in neutral form, once a translation needed it."""
    unnamed: bool = False
    """The body names no model, and the default one serves."""
    units: Units = NO_UNITS
    """What the request asks for that is priced by the piece."""
    answered_here: bool = False
    """The proxy answers itself; no target is asked."""
    earlier_tokens: int = 0
    """Tokens of the conversation that the request goes on from without holding it."""
    upstream: Dialect | None = None
    """What the last target that was asked speaks."""
    edits: tuple[tuple[int, int, bytes], ...] = ()
    """How the body sent upstream differs from the one received."""
    sent: bytes | None = None
    """The body as sent, where it was written anew."""
    dropped: tuple[str, ...] = ()
    """What of the request the last target was not told."""
    receipts: str = ""
    """What the header `x-receipts` says, empty for none."""
    reply_headers: tuple[tuple[bytes, bytes], ...] = ()
    """Headers of the upstream's reply that pass on."""
    target: str = ""
    provider: str = ""
    server: str = ""
    served_model: str = ""
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    last: Attempt | None = None
    """Of two attempts at once the one that counted; else the last."""
    continues: bool = False
    """Where its reply is cut another target may go on with it, so that it is written anew from the start."""
    resume: Resume | None = None
    """What was released of a cut reply, for the next target to go on from."""
    resumed: Resume | None = None
    """What the last target that was asked went on from."""
    assembly: Assembly = field(default_factory=Assembly)
    emitted: io.BytesIO = field(default_factory=io.BytesIO)
    """What the last target sent: a buffer gives its bytes away without a second copy of them."""
    released: list[bytes] | None = None
    """What the agent received, where it's not `emitted`."""
    left_out: tuple[tuple[int, int], ...] | None = None
    """The slices of `emitted` that the agent did not receive, where it got all else as it came."""
    decisions: list[Decision] = field(default_factory=list[Decision])
    results: tuple[ToolResultView, ...] = ()
    offer: Offer | None = None
    """The tools that it declares, and what of them is withheld; None where nothing could be."""
    provider_uses: int = 0
    """How many times the provider is known to have run a tool itself."""
    redaction: Redaction | None = None
    """The `redact` rules of the policy that the call is under."""
    arrived: tuple[tuple[Scanned, ...], ...] = ()
    """The tool results in each message of the request."""
    tools_of: dict[tuple[str, str], str | None] = field(default_factory=dict[tuple[str, str], str | None])
    """The tool of each result, by id and digest; None where it is no result of a released call."""
    record_mask: RecordMask | None = None
    """What is masked of what is kept; None where nothing is."""
    keeps_content: bool = True
    """False where of content only sizes and salted hashes are kept."""
    recorded: Taken | None = None
    """The request as it is kept."""
    request_masked: bool = False
    """Something of the request is kept masked."""
    ending: Ending | None = None
    """What is kept at the call's end."""
    redactions: tuple[Edit, ...] = ()
    """What is redacted of the request before it goes upstream."""
    guard: Guard | None = None
    """What its caller may not read of a reply; None where that is nothing."""
    taken: Amount = ZERO
    """Tool calls and writes that the gate took."""
    broke_off: bool = False
    """The last target that was asked failed after something of its reply had reached the agent."""
    lost: list[Spent] = field(default_factory=list[Spent])
    """What failed attempts may have cost."""
    spent: Spent = field(default_factory=Spent)
    status: Status = Status.OPEN
    problem: Problem | None = None
    first_event_s: float | None = None
    upstream_s: float = 0.0
    upstream_until: float = 0.0
    """Up to when `upstream_s` is counted."""
    told: WireRequest | None = None
    """The request with what the agent never saw of its own history, where there is something."""
    unseen: UnseenRow | None = None
    """What the agent is not told of this reply, under the key by which it comes back."""
    rounds: list[Round] = field(default_factory=list[Round])
    """Earlier replies to the same call, which the model was answered by the proxy."""
    drains: bool = False
    """If the caller leaves, the reply that a target is at work on is read to its end all the same."""
    asking: bool = False
    """A target is at work on it, or has answered."""
    overhead_ms: float | None = None
    reached_upstream: bool = False
    client_gone: bool = False
    stopped: ProxyError | None = None
    """Why it was ended from outside: its key, its agent or its run came to an end meanwhile."""
    task: asyncio.Task[None] | None = None
    """What carries it, while it may be ended from outside."""
    replied: bool = False
    """The last byte is on its way: a disconnect is no loss any more."""

    @property
    def model(self) -> str:
        """The name under which the call is routed and counted: that of the request, or a limit's."""
        if self.downgraded is not None:
            return self.downgraded.model
        return self.request.model if self.request is not None else ""

    def elapsed(self) -> float:
        """Seconds since the call began."""
        return time.perf_counter() - self.clock0

    def waited(self, since: float, until: float) -> None:
        """The upstream's time: two tries at once are waited for once."""
        self.upstream_s += max(0.0, until - max(since, self.upstream_until))
        self.upstream_until = max(self.upstream_until, until)

    def overhead(self) -> float:
        """Milliseconds spent in the proxy itself so far, the upstream's time left out."""
        return max(0.0, (self.elapsed() - self.upstream_s) * 1000)
