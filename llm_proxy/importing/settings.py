"""What `litellm_settings` and `general_settings` say of the proxy as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from llm_proxy.importing.drafts import BudgetDraft, ServerDraft
from llm_proxy.importing.names import ENVIRON, variable_of
from llm_proxy.importing.report import Notes
from llm_proxy.importing.source import Field
from llm_proxy.importing.spans import limit_of

_OTEL = frozenset({"otel", "opentelemetry"})
_OTEL_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_MASTER_KEY = "LITELLM_MASTER_KEY"
_MOST_MB = 1024
_CALLBACKS = ("callbacks", "success_callback", "failure_callback")
_TO_OTLP = "spans go by OTLP to any backend that takes them: set telemetry.otlp_endpoint"


@dataclass(frozen=True, slots=True)
class Whole:
    """Of the proxy as a whole."""

    server: ServerDraft
    translation: str | None
    otlp_endpoint: str | None
    budget: BudgetDraft | None
    timezone: str
    drains: bool


def read_whole(root: Field, notes: Notes) -> Whole:
    litellm, general = root.at("litellm_settings"), root.at("general_settings")
    timezone = _timezone(litellm.get("timezone"), notes)
    return Whole(
        server=ServerDraft(
            admin_token=_master_key(general.get("master_key"), notes),
            max_body_mb=_max_body(general.get("max_request_size_mb"), notes),
        ),
        translation=_translation(root, notes),
        otlp_endpoint=_telemetry(litellm, general, notes),
        budget=_budget(litellm, timezone, notes),
        timezone=timezone,
        drains=_drains(general.get("cancel_on_disconnect"), notes),
    )


def _master_key(field: Field | None, notes: Notes) -> str | None:
    if field is None or field.text is None:
        return None
    variable = variable_of(field.text)
    note = "opens /admin; calls need the key of an agent"
    if variable is None:
        note = f"{note}; the secret itself is not copied: set {_MASTER_KEY} to it"
    reference = f"${{{variable or _MASTER_KEY}}}"
    notes.approximate(field, f"server.admin_token = {reference}", note)
    return reference


def _max_body(field: Field | None, notes: Notes) -> int | None:
    number = field.number if field is not None else None
    if field is None or number is None or number <= 0:
        return None
    megabytes = min(math.ceil(number), _MOST_MB)
    if megabytes == number:
        notes.exact(field, "server.max_body_mb")
    else:
        notes.approximate(field, "server.max_body_mb", f"a whole number from 1 to {_MOST_MB}: {megabytes}")
    return megabytes


def _translation(root: Field, notes: Notes) -> str | None:
    """Dropping is the default here; there a deployment may have its own mind."""
    dropped = root.at("litellm_settings").get("drop_params")
    for entry in root.at("model_list").items():
        own = entry.at("litellm_params").get("drop_params")
        if own is not None and own.switch is not None:
            notes.approximate(
                own, "translation", "one for the whole proxy; what is dropped is named in the reply"
            )
    if dropped is None or dropped.switch is None:
        return None
    translation = "lenient" if dropped.switch else "strict"
    notes.exact(dropped, f"translation = {translation}")
    return translation


def _telemetry(litellm: Field, general: Field, notes: Notes) -> str | None:
    """The reference to write where LiteLLM exports by OpenTelemetry."""
    exports = False
    for item in _callbacks(litellm):
        if item.text in _OTEL:
            exports = True
            note = f"the address comes from {_OTEL_ENDPOINT}; spans have names and attributes of their own"
            notes.approximate(item, "telemetry.otlp_endpoint", note)
        elif item.text == "prometheus":
            notes.approximate(item, "/metrics", "always there, with metrics of its own")
        else:
            notes.unsupported(item, _TO_OTLP)
    switch = general.get("otel")
    if switch is not None and switch.switch:
        exports = True
        notes.approximate(switch, "telemetry.otlp_endpoint", f"the address comes from {_OTEL_ENDPOINT}")
    return f"${{{_OTEL_ENDPOINT}}}" if exports else None


def _callbacks(litellm: Field) -> Iterator[Field]:
    for key in _CALLBACKS:
        field = litellm.at(key)
        yield from ([field] if field.text else field.items())


def _timezone(field: Field | None, notes: Notes) -> str:
    if field is None or field.text is None:
        return "UTC"
    try:
        ZoneInfo(field.text)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        notes.unsupported(field, "is no IANA time zone: UTC is written")
        return "UTC"
    notes.exact(field, "budgets[].timezone")
    return field.text


def _budget(litellm: Field, timezone: str, notes: Notes) -> BudgetDraft | None:
    """Over everything that the proxy spends. 0 is no limit, as there."""
    money, duration = litellm.get("max_budget"), litellm.get("budget_duration")
    if money is None or money.number == 0:
        for field in (money, duration):
            if field is not None:
                notes.exact(field, note="limits nothing, as there")
        return None
    if isinstance(money.value, str) and money.value.startswith(ENVIRON):
        notes.unsupported(money, "comes from the environment: write the number under budgets")
        return None
    limit = limit_of(money, duration, "budgets.litellm-total", notes)
    if limit is None:
        return None
    return BudgetDraft("litellm-total", limit.window, usd=limit.usd, timezone=timezone)


def _drains(field: Field | None, notes: Notes) -> bool:
    if field is None or field.switch is None:
        return False
    if field.switch:
        notes.exact(field, "models.*.on_leave = cancel")
    else:
        notes.exact(field, "models.*.on_leave = drain")
    return not field.switch
