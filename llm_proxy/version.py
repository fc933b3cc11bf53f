"""The version, as the package's metadata states it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _version() -> str:
    try:
        return version("llm-proxy")
    except PackageNotFoundError:
        return "0.0.0+source"


VERSION = _version()
