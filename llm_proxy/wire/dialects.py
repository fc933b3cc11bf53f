"""The dialects served. A new one is a row in `DIALECTS`."""

from __future__ import annotations

from collections.abc import Mapping

from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import OPENAI_CHAT

DIALECTS: Mapping[str, Dialect] = {dialect.name: dialect for dialect in (OPENAI_CHAT,)}
