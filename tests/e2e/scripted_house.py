"""A proxy, and the scripted server that it asks."""

from __future__ import annotations

from dataclasses import dataclass

from llm_proxy.scripted.server import Scripted
from tests.proxy import ProxyProcess


@dataclass(frozen=True)
class House:
    proxy: ProxyProcess
    upstream: Scripted
