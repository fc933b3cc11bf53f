"""Checks of single values that the schema's types alone don't make. All raise ValueError with what to do."""

from __future__ import annotations

import difflib
from typing import TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from pydantic import BeforeValidator

from budgets.windows import WINDOWS

T = TypeVar("T")


def none_yet(what: str) -> BeforeValidator:
    def check(value: object) -> object:
        if value:
            raise ValueError(f"{what} are not served by this version: leave the list empty")
        return ()

    return BeforeValidator(check)


def at_least_one(targets: tuple[T, ...]) -> tuple[T, ...]:
    if not targets:
        raise ValueError("must list at least one target")
    return targets


def known_window(name: str) -> str:
    if name not in WINDOWS:
        near = difflib.get_close_matches(name, WINDOWS, n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"must be one of {', '.join(WINDOWS)}{hint}")
    return name


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
