"""Providers by the names that OpenTelemetry's GenAI conventions have for them."""

from __future__ import annotations

_NAMES = {
    "bedrock": "aws.bedrock",
    "azure": "azure.ai.openai",
    "gemini": "gcp.gemini",
    "vertex_ai": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "xai": "x_ai",
    "": "llm_proxy",
}
"""Those that differ from ours. A call that no provider answered was answered by the proxy."""


def provider_name(provider: str) -> str:
    return _NAMES.get(provider, provider)
