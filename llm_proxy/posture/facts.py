"""The snapshot that the questions are answered from: config, policy, files, and figures of the records."""

from __future__ import annotations

from dataclasses import dataclass

from llm_proxy.config import Config
from llm_proxy.policy.schema import PolicyFile


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysOf:
    """An agent's issued keys that are good now."""

    active: int = 0
    endless: int = 0
    """Of them without an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalls:
    """Tool calls of the last days. Each count is of `total`, unless it says otherwise."""

    total: int = 0
    digests: int = 0
    """The exact action is known by its digest."""
    released: int = 0
    answered: int = 0
    """Released, and their result came in."""
    results: int = 0
    """Of those answered, with the digest of the result."""
    verdicts: int = 0
    """Recorded verdicts that were looked at, the newest; the next two are of them."""
    judged: int = 0
    """Under a policy, whose hash stands beside the verdict."""
    inputs: int = 0
    """Their arguments can be read."""
    changes: int = 0
    """Released calls that write, or that can't be undone."""
    effects: int = 0
    """Of those, the ones with a side effect that was reported."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Users:
    """Runs of the last days on behalf of a user, and those whose credential named the user."""

    runs: int = 0
    verified: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A freeze, and what ended by it. `seconds`: until the last open reply of the agent had ended."""

    agent_id: str
    at_us: int
    streams: int
    seconds: float
    live: bool = False
    """Measured just now, for this report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """The newest checkpoint, and what no checkpoint covers."""

    checkpoints: int = 0
    newest_us: int | None = None
    unsigned: int = 0
    records: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Figures of the store. Times are Unix µs."""

    calls: int = 0
    refused: int = 0
    newest_us: int | None = None
    keys: dict[str, KeysOf]
    tools: ToolCalls = ToolCalls()
    users: Users = Users()
    cut: Cut | None = None
    signed: Signed = Signed()
    unsent: int = 0
    oldest_unsent_us: int | None = None
    dead_letters: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """One run, put together again. `problems` say what of it is not there, or not as it was written."""

    run_id: str
    agent_id: str
    calls: int
    requests: int
    replies: int
    bytes: int
    rows: int
    """Records of the run whose place in the chain was computed again."""
    masked: int
    """Calls of which something is masked."""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """The file of the signing key."""

    path: str
    exists: bool
    open_to_others: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """`records` is None where nothing was ever recorded, `store_problem` why it can't be read."""

    config: Config
    policy: PolicyFile | None
    policy_sha256: str = ""
    plain: tuple[str, ...] = ()
    """Keys of the config file whose secret stands there as it is, such as `agents.bot.keys[0]`."""
    key_file: KeyFile
    store: str
    store_problem: str = ""
    records: Records | None = None
    rebuilt: Rebuilt | None = None
    now_us: int
    days: int = 30
