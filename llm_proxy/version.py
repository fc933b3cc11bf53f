"""The version, as the package's metadata states it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("llm-proxy")
except PackageNotFoundError:
    VERSION = "0.0.0+source"
