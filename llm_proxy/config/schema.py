"""Every key of proxy.yaml, with its type and default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from llm_proxy.config.budgeting import BudgetConfig, PriceConfig, WebhookConfig
from llm_proxy.config.choices import (
    Affinity,
    Content,
    DialectName,
    Durability,
    Hold,
    LogLevel,
    OnCut,
    OnLeave,
    Protocol,
    Role,
    StrategyName,
    Translation,
    Unpriced,
)
from llm_proxy.config.credentials import ApiKey, Key, OptionalKey, Secret, read_secret
from llm_proxy.config.issuers import ClaimPath, IdentityConfig
from llm_proxy.config.oidc import OidcConfig
from llm_proxy.config.places import Address, ExistingFile, Folder, KeyFile, PublicUrl, StoreUrl
from llm_proxy.config.providers import LITELLM, check_provider
from llm_proxy.config.shapes import (
    EntryName,
    Float,
    Int,
    Items,
    Name,
    Seconds,
    Section,
    Table,
    Text,
)
from llm_proxy.config.values import at_least_one, name_of_a_person
from llm_proxy.yamlpos import Issue


class ServerConfig(Section):
    """Where the proxy listens. Without `admin_token`, /admin and the console answer 403."""

    host: Text = "127.0.0.1"
    port: Annotated[Int, Field(ge=0, le=65_535)] = 4000
    """0 takes a free port."""
    admin_token: OptionalKey = None
    public_url: PublicUrl | None = None
    """Where people reach the proxy from outside; links in events begin with it."""
    max_body_mb: Annotated[Int, Field(ge=1, le=1024)] = 32
    max_bodies_mb: Annotated[Int, Field(ge=1, le=1_048_576)] = 1024
    """What the bodies of a worker's calls may take together."""
    max_connections: Annotated[Int, Field(ge=1, le=1_000_000)] = 10_000
    """Of each worker."""
    environment: Text = "prod"
    drain_s: Annotated[Float, Field(ge=0, le=86_400)] = 20


class RecordsConfig(Section):
    durability: Durability = Durability.STRICT
    content: Content = Content.FULL
    stitch_runs: bool = True
    """A call that names no run goes on with the run whose conversation it goes on with."""
    mask_secrets: bool = True
    """API keys, tokens and private keys are masked in what is kept of prompts, replies and arguments."""
    retention_days: Annotated[Int, Field(ge=1, le=36_500)] = 90
    """Content older than that is deleted, day by day; what was done and decided stays on record."""
    export_before_delete: Folder = None
    """Where a copy of each day's calls is written before their content is deleted."""
    signing_key: KeyFile = None
    """The file of the Ed25519 key, made where it is not there yet. Absent, it is beside the store."""


class ReceiptsConfig(Section):
    """The signed statements by which tools know that an action was released."""

    issuer: Text = ""
    """Who signs, by the receipt's word; empty is server.public_url, else telemetry.service_name."""
    valid_s: Annotated[Int, Field(ge=1, le=3_600)] = 120
    window_s: Annotated[Int, Field(ge=1, le=86_400)] = 900
    """How long after its release a call can get a receipt."""


class TelemetryConfig(Section):
    """Export over OTLP; off without an endpoint."""

    otlp_endpoint: Address | None = None
    protocol: Protocol = Protocol.HTTP
    service_name: Text = "llm-proxy"
    timeout_s: Seconds = 10
    """How long an answer to one request is waited for."""
    metrics: bool = True
    """Metrics go there too."""
    metrics_interval_s: Annotated[Float, Field(ge=1, le=3_600)] = 60


class LogConfig(Section):
    """JSON lines on standard error, without content or secrets."""

    level: LogLevel = LogLevel.INFO
    calls: bool = True
    """One line for each call, when it ends."""


class TargetConfig(Section):
    """One place that a model can be had from. `model: "*"` passes on the name that was asked for."""

    id: Name
    provider: Annotated[Text, AfterValidator(check_provider)]
    model: Annotated[Text, Field(min_length=1)] = "*"
    base_url: Address | None = None
    api_key: Secret = None
    api_keys: Items[ApiKey] = ()
    """Several keys of the same account or model, used in turn; one that is refused or limited rests alone."""
    rpm: Annotated[Int, Field(ge=1, le=10**9)] | None = None
    """Requests per minute, tokens per minute and calls at once that it takes: no more are sent."""
    tpm: Annotated[Int, Field(ge=1, le=10**12)] | None = None
    concurrency: Annotated[Int, Field(ge=1, le=10**6)] | None = None
    weight: Annotated[Float, Field(gt=0, le=1e6)] = 1
    dialects: Items[DialectName] = ()
    """What it speaks, the preferred one first; empty is what its provider is known to speak."""
    script: ExistingFile = None

    @model_validator(mode="after")
    def _fits_provider(self) -> Self:
        if self.provider == "scripted":
            if self.script is None:
                raise ValueError("provider scripted needs script: the path of its YAML file")
            if self.base_url or self.api_key or self.api_keys:
                raise ValueError("provider scripted is served in-process: leave out base_url and api_key")
        elif self.script is not None:
            raise ValueError(f"script is for provider scripted: leave it out of provider {self.provider}")
        elif self.provider in _HOSTS and self.base_url is None and not self.keys:
            host = _HOSTS[self.provider]
            raise ValueError(f"needs an api_key for {host}, or the base_url of another server")
        if self.api_key is not None and self.api_keys:
            raise ValueError("has api_key and api_keys: put all of its keys under api_keys")
        if self.dialects and (self.provider == "scripted" or self.provider in LITELLM):
            raise ValueError(
                f"dialects is for providers openai and anthropic: leave it out of {self.provider}"
            )
        return self

    @property
    def keys(self) -> tuple[str, ...]:
        """Every API key, as it is sent."""
        keys = self.api_keys or ((self.api_key,) if self.api_key is not None else ())
        return tuple(key.get_secret_value() for key in keys)


_HOSTS = {"openai": "api.openai.com", "anthropic": "api.anthropic.com"}


class TimeoutsConfig(Section):
    """Seconds. `first_event_s` is up to the first sign of a reply, `idle_s` between two."""

    connect_s: Seconds = 5
    first_event_s: Seconds = 60
    idle_s: Seconds = 60
    total_s: Seconds = 600
    """For the whole call, every try and every wait included."""


class BreakerConfig(Section):
    """When a target of the model rests, and for how long."""

    failures: Annotated[Int, Field(ge=1, le=1000)] = 5
    """In a row."""
    cool_down_s: Seconds = 15


class ModelConfig(Section):
    """What a name that agents ask for leads to."""

    strategy: StrategyName = StrategyName.ORDERED
    affinity: Affinity = Affinity.RUN
    targets: Annotated[Items[TargetConfig], AfterValidator(at_least_one)]
    fallbacks: Items[Text] = ()
    """Other models, asked in order after the targets."""
    context_fallbacks: Items[Text] = ()
    """Models with a larger window, asked in place of targets that the prompt is too long for."""
    content_fallbacks: Items[Text] = ()
    """Models asked in place of one whose vendor's content filter refused the request."""
    on_cut: OnCut = OnCut.ERROR
    on_leave: OnLeave = OnLeave.CANCEL
    hold: Hold = Hold.WORST_CASE
    hedge_after: Literal["p95"] | Seconds | None = None
    """Start a second target when the first gave nothing for its own p95, or for so many seconds."""
    breaker: BreakerConfig = BreakerConfig()
    timeouts: TimeoutsConfig = TimeoutsConfig()
    retries: Annotated[Int, Field(ge=0, le=10)] = 2
    """Per target, beyond the first attempt."""


class AgentConfig(Section):
    owner: Text = ""
    team: Text = ""
    role: Text = ""
    keys: Items[Key] = ()
    models: Items[Text] = ()
    require_run: bool = False
    tools: Items[Text] = ("*",)
    scopes: Table[EntryName, Items[Text]] = Field(default_factory=dict[str, tuple[str, ...]])


class OperatorConfig(Section):
    """A person; never an agent."""

    id: Annotated[Name, AfterValidator(name_of_a_person)]
    groups: Items[Text] = ()
    roles: Items[Role] = ()
    token: OptionalKey = None
    oidc: ClaimPath | None = None
    """What the provider's claim says of this person; absent, it's the id."""


class ConfigFile(Section):
    """proxy.yaml."""

    server: ServerConfig = ServerConfig()
    store: Annotated[StoreUrl, BeforeValidator(read_secret)] = SecretStr("sqlite:///llm-proxy.db")
    """SQLAlchemy's form; a relative SQLite file is relative to the current directory."""
    records: RecordsConfig = RecordsConfig()
    receipts: ReceiptsConfig = ReceiptsConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    log: LogConfig = LogConfig()
    unpriced: Unpriced = Unpriced.REFUSE
    identity: IdentityConfig = IdentityConfig()
    webhooks: Items[WebhookConfig] = ()
    translation: Translation = Translation.LENIENT
    default_model: Text | None = None
    """The model whose first target serves paths under /v1/ that name none (files, batches)."""
    prices: Table[EntryName, PriceConfig] = Field(default_factory=dict[str, PriceConfig])
    models: Table[EntryName, ModelConfig] = Field(default_factory=dict[str, ModelConfig])
    agents: Table[Name, AgentConfig] = Field(default_factory=dict[str, AgentConfig])
    budgets: Items[BudgetConfig] = ()
    operators: Items[OperatorConfig] = ()
    oidc: OidcConfig = OidcConfig()
    """By which operators may sign in to the console in place of tokens."""
    policy: ExistingFile = None


class Config(ConfigFile):
    """A proxy.yaml that checks out, with where it came from. Made by `load_config` only."""

    path: Path
    config_sha256: str
    """Hex, of the file's bytes."""
    warnings: tuple[Issue, ...] = ()
