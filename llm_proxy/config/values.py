"""Checks of single values that the schema's types alone don't make. All raise ValueError with what to do."""

from __future__ import annotations

import base64
import difflib
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import SecretStr

from budgets import ROLLING, WINDOWS, rolling_us
from llm_proxy.config.choices import Event

T = TypeVar("T")
ADMIN_TOKEN = "admin_token"  # noqa: S105 (the name under which it stands in records)
_WEBHOOK_KEY = "whsec_"


def at_least_one(targets: tuple[T, ...]) -> tuple[T, ...]:
    if not targets:
        raise ValueError("must list at least one target")
    return targets


def name_of_a_person(id_: str) -> str:
    if id_ == ADMIN_TOKEN:
        raise ValueError("is how the admin token stands in records: name the person")
    return id_


def known_window(name: str) -> str:
    if name in WINDOWS or rolling_us(name) is not None:
        return name
    near = difflib.get_close_matches(name, WINDOWS, n=1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"must be one of {', '.join(WINDOWS)}, or {ROLLING}{hint}")


def known_event(name: str) -> str:
    if name not in list(Event):
        near = difflib.get_close_matches(name, list(Event), n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(Event)}"
        raise ValueError(f"is no event: {hint}")
    return name


def webhook_key(secret: str) -> bytes:
    """What signs a webhook's deliveries: base64 behind `whsec_`, else the text itself."""
    if not secret.startswith(_WEBHOOK_KEY):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_WEBHOOK_KEY), validate=True)
    except ValueError:
        raise ValueError("begins with whsec_ and is not base64 behind that: copy it anew") from None
    if not key:
        raise ValueError("holds nothing behind whsec_: copy it anew")
    return key


def usable_secret(secret: SecretStr) -> SecretStr:
    webhook_key(secret.get_secret_value())
    return secret


def known_time_zone(name: str) -> str:
    if name == "UTC":  # known even where no time zone database is installed
        return name
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        near = difflib.get_close_matches(name, available_timezones(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "write it as in Europe/Berlin, or UTC"
        raise ValueError(f"is not a known IANA time zone: {hint}") from error
    return name
