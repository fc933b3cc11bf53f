"""The dialects served. A new one is a row in `DIALECTS`."""

from __future__ import annotations

from collections.abc import Mapping

from llm_proxy.wire.action import ACTION
from llm_proxy.wire.anthropic_messages import ANTHROPIC_MESSAGES, COUNT_TOKENS
from llm_proxy.wire.dialect import Dialect
from llm_proxy.wire.openai_chat import OPENAI_CHAT
from llm_proxy.wire.openai_completions import OPENAI_COMPLETIONS
from llm_proxy.wire.openai_embeddings import OPENAI_EMBEDDINGS
from llm_proxy.wire.openai_responses import OPENAI_RESPONSES
from llm_proxy.wire.passthrough import PASSTHROUGH

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OPENAI_CHAT,
        OPENAI_RESPONSES,
        ANTHROPIC_MESSAGES,
        COUNT_TOKENS,
        OPENAI_COMPLETIONS,
        OPENAI_EMBEDDINGS,
        PASSTHROUGH,
        ACTION,
    )
}
