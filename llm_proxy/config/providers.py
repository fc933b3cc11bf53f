"""Which providers a target may name: those served natively, and those that the litellm package serves."""

from __future__ import annotations

import difflib

NATIVE: frozenset[str] = frozenset({"anthropic", "openai", "scripted"})
"""Served by this project itself; every other known name goes through the litellm package."""

_NAMES = """
    a2a a2a_agent ai21 ai21_chat aiml amazon_nova anthropic anthropic_text azure azure_ai azure_text baseten
    bedrock bytez cerebras clarifai cloudflare codestral cohere cohere_chat cometapi compactifai custom
    custom_openai dashscope databricks datarobot deepinfra deepseek docker_model_runner elevenlabs empower
    featherless_ai fireworks_ai friendliai galadriel gemini gigachat github github_copilot gradient_ai groq
    heroku hosted_vllm huggingface hyperbolic infinity jina_ai lambda_ai langgraph lemonade litellm_proxy
    llamafile lm_studio maritalk meta_llama minimax mistral modelscope moonshot morph nano-gpt nebius
    nlp_cloud novita nscale nvidia_nim oci ollama ollama_chat oobabooga openai_like openrouter ovhcloud
    perplexity petals predibase publicai replicate sagemaker sagemaker_chat sambanova sap scaleway snowflake
    synthetic text-completion-openai together_ai triton v0 vercel_ai_gateway vertex_ai vertex_ai_beta vllm
    volcengine voyage wandb watsonx watsonx_text xai xinference zai
"""
LITELLM: frozenset[str] = frozenset(_NAMES.split()) - NATIVE
"""Names that the litellm package knows (its `LlmProviders`); importing it to ask would take seconds."""


def check_provider(name: str) -> str:
    """`name` where it is served. Raises ValueError saying what to do."""
    if name in NATIVE or name in LITELLM:
        return name
    near = difflib.get_close_matches(name, NATIVE | LITELLM, n=1)
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else "for an OpenAI-compatible server, use openai with its base_url"
    )
    served = ", ".join(sorted(NATIVE))
    raise ValueError(f"unknown provider; served are {served} and what litellm knows: {hint}")
