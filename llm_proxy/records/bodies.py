"""The JSON bodies of the evidence, typed: written by the journal, read back by the view.

Content stands in blobs; a body holds their addresses as hex. Times are seconds since the call began.
"""

from __future__ import annotations

import msgspec

from llm_proxy.chat.events import Usage
from llm_proxy.records.judged import Judged
from llm_proxy.records.view import Attempt, Decision, Problem, ProviderUse, ToolResultView, Withheld


class Fold(msgspec.Struct, frozen=True, array_like=True):
    """A list of messages, the first at byte `start` of the envelope, `step` bytes from one to the next.

    `parts` are in order: (0, a message's address), or (level, that of a block of addresses a level below),
    in URL-safe base64 (see `folding.py`). `between` is what stands between any two messages, which is left
    out of the envelope; empty where it isn't.
    """

    start: int
    step: int
    parts: tuple[tuple[int, str], ...]
    between: str = ""


class Content(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request's body: an envelope, and the blobs that belong in it.

    `cuts` are (byte of the envelope, address), in order. Earlier versions wrote `holes` instead: (position in
    the body, address), a hole's length being that of its blob. Where the body is not JSON, `whole` is the
    address of all of it. `masked`: something of it is not as it was.

    Where no content is kept (`records.content: digest`) there is no envelope: `size` is that of the body,
    `sizes` those of its pieces, in bytes, and their addresses are salted hashes of them.
    """

    envelope: str = ""
    cuts: tuple[tuple[int, str], ...] = ()
    fold: Fold | None = None
    """The cuts of a long list of messages."""
    holes: tuple[tuple[int, str], ...] = ()
    whole: str = ""
    masked: bool = False
    size: int = 0
    sizes: tuple[int, ...] = ()


class Edit(msgspec.Struct, frozen=True, array_like=True):
    """The slice `start` to `end` of the received body was replaced by `text` before sending."""

    start: int
    end: int
    text: str


class Opened(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`call.opened`, and the first half of `call.refused`."""

    dialect: str
    stream: bool = False
    model: str = ""
    team: str = ""
    role: str = ""
    key_id: str = ""
    user_id: str = ""
    parent_run_id: str = ""
    run_inferred: bool = False
    tags: tuple[str, ...] = ()
    traceparent: str = ""
    content: Content | None = None
    user_verified: bool = False
    actors: tuple[str, ...] = ()
    """The delegation chain of the credential, the nearest first."""
    parent_agent_id: str = ""
    """Whose run `parent_run_id` is; empty where that is a trace link and no more."""
    asked_model: str = ""
    """The model that was asked for, where limit `downgraded_by` put another in its place."""
    downgraded_by: str = ""
    held: dict[str, int] = {}
    floor: dict[str, int] = {}
    bounds: tuple[str, ...] = ()
    """The counters that the hold stands in: what the call used is in each of them."""
    policy: str = ""
    results: tuple[ToolResultView, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    """What it declared and the model was not offered."""


class Verdicts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`call.verdicts`: committed before any of the calls it allows is released."""

    decisions: tuple[Decision, ...]
    """Without their arguments; in earlier versions with them."""
    revision: int
    arguments: str = ""
    """The address of all the calls' arguments (see `arguments.py`)."""
    context: Judged | None = None
    """What the policy's verdicts rested on; None where none is in force."""


class ProviderTools(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`call.provider_tools`: what the provider ran itself for a reply, and the run's labels behind it."""

    uses: tuple[ProviderUse, ...]
    sensitivity: int = 0
    untrusted: bool = False
    revision: int = 0


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What a target sent of a reply that was cut and that another went on with.

    `chars` of its text, as far as it was new, reached the agent.
    """

    dialect: str
    emitted: str
    chars: int


class Closed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`call.closed`, and the second half of `call.refused`."""

    status: str
    target: str = ""
    provider: str = ""
    server: str = ""
    served_model: str = ""
    attempts: tuple[Attempt, ...] = ()
    first_event_s: float | None = None
    total_s: float = 0.0
    overhead_ms: float | None = None
    finish_reasons: tuple[str, ...] = ()
    usage: Usage | None = None
    cost_micro_usd: int = 0
    cost_label: str = ""
    lost_micro_usd: int = 0
    """The part of the cost that failed attempts had."""
    topped_up: dict[str, int] = {}
    """What was held while the reply came, beyond the opening record's `held`."""
    price: str = ""
    """The version of the price that the cost was counted with (`state_prices` has its rates)."""
    tier: str = ""
    """The service tier that the upstream says it served in, where it isn't the usual one."""
    requests: int = 0
    """What it counted as in limits of requests: 1 where a target was reached."""
    tools: tuple[str, ...] = ()
    """Tools of the calls that the reply proposed, in order, where no verdict names them."""
    problem: Problem | None = None
    upstream: str = ""
    """The dialect that the last target spoke, where it is not the caller's: `emitted` is in it."""
    edits: tuple[Edit, ...] = ()
    edited: str = ""
    """The address of the edits, where they hold something of what was said."""
    sent: Content | None = None
    """The body as sent, where it was written anew in another dialect."""
    dropped: tuple[str, ...] = ()
    pieces: tuple[Piece, ...] = ()
    """Of a cut reply, in order: what came before `emitted`."""
    rounds: tuple[Piece, ...] = ()
    """Replies whose calls were all denied, in order: the model was told so and asked again."""
    emitted: str = ""
    size: int = 0
    """Bytes of what was emitted, where no content is kept."""
    released: str = ""
    """Empty where it's what was emitted; `-` where nothing of the reply was released."""
    masked: bool = False
    """Something of the reply, or of the rounds and pieces before it, is not as it was."""
    left_out: tuple[tuple[int, int], ...] = ()
    """With an empty `released`: the slices of what was emitted that were not released."""


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """`call.refused`: a call that was recorded and never opened."""

    opened: Opened
    closed: Closed


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """`budget.reached`: what was used of a limit has come to `level`. Amounts of usd are micro-dollars."""

    event: str
    """`budget.warned` at the level of `warn_at`; `budget.exceeded` at the maximum of one that only warns."""
    limit: str
    counter: str
    unit: str
    level: int
    used: int
    maximum: int
    window: str
    resets_us: int | None
    message: str


class PolicyLoaded(msgspec.Struct, frozen=True, kw_only=True):
    """`policy.loaded`: a policy file came into force in one process, or could not (`error`)."""

    file: str
    """Its name, without the folder."""
    sha256: str
    """Of its bytes; empty where it couldn't be read."""
    id: str = ""
    version: str = ""
    mode: str = ""
    before: str = ""
    """The SHA-256 of the policy that was in force; empty at start-up."""
    in_force: bool = True
    error: str = ""


encode = msgspec.json.Encoder().encode
read_opened = msgspec.json.Decoder(Opened).decode
read_closed = msgspec.json.Decoder(Closed).decode
read_refused = msgspec.json.Decoder(Refused).decode
read_provider_tools = msgspec.json.Decoder(ProviderTools).decode
read_verdicts = msgspec.json.Decoder(Verdicts).decode
read_edits = msgspec.json.Decoder(tuple[Edit, ...]).decode
read_reached = msgspec.json.Decoder(Reached).decode
