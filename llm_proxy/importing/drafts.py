"""What is going to be written: the parts of a proxy.yaml, as far as an import fills them.

Names of models are as agents ask for them. Other texts are as they stand in the file: `${VAR}` is a
reference, and `$$` a dollar.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from llm_proxy.config.choices import StrategyName


@dataclass(frozen=True, slots=True)
class TargetDraft:
    id: str
    provider: str
    model: str
    base_url: str | None = None
    api_key: str | None = None
    dialects: tuple[str, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class ModelDraft:
    """None, zero and empty leave the key out. Times are in seconds."""

    name: str
    targets: tuple[TargetDraft, ...]
    strategy: StrategyName | None = None
    affinity_off: bool = False
    fallbacks: tuple[str, ...] = ()
    context_fallbacks: tuple[str, ...] = ()
    content_fallbacks: tuple[str, ...] = ()
    retries: int | None = None
    first_event_s: float | None = None
    idle_s: float | None = None
    total_s: float | None = None
    failures: int | None = None
    cool_down_s: float | None = None
    drains: bool = False
    compact: bool = False
    """One of many made from a wildcard: written on one line."""
    origin: tuple[str, ...] = ()
    """The fields of the source that it was made from, such as `model_list[0]`."""


@dataclass(frozen=True, slots=True)
class AgentDraft:
    name: str
    keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    owner: str = ""
    team: str = ""


@dataclass(frozen=True, slots=True)
class BudgetDraft:
    """`usd` is decimal text. `agent` None counts everybody together."""

    id: str
    window: str
    agent: str | None = None
    usd: str | None = None
    tokens: int | None = None
    requests: int | None = None
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class ServerDraft:
    admin_token: str | None = None
    max_body_mb: int | None = None


@dataclass(frozen=True, slots=True)
class ProxyDraft:
    models: tuple[ModelDraft, ...] = ()
    agents: tuple[AgentDraft, ...] = ()
    budgets: tuple[BudgetDraft, ...] = ()
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    server: ServerDraft = ServerDraft()
    translation: str | None = None
    otlp_endpoint: str | None = None
