"""How a target's model counts: its encoding, its way with pictures, and how far tiktoken may be off there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from llm_proxy.counting.vision import Areas, Crops, Patches, Tiles, Vision, any_vendor, by_resolution

O200K, CL100K = "o200k_base", "cl100k_base"
ONE = 1_000_000
"""Ratios are in millionths."""


@dataclass(frozen=True, eq=False, slots=True, kw_only=True)
class Tokenizer:
    """One way to count; each is made once, so that identity tells them apart."""

    encoding: str = O200K
    vision: Vision = any_vendor
    tools: int = 0
    """Tokens that the vendor writes around tool declarations."""
    prior: int = ONE
    """How many of the model's tokens one of the encoding's may come to, before any answer told."""


# Articles, code and mathematics come to 16 to 30 % more of Claude's tokens than of o200k_base's; from
# Claude 4.7 on to 1.0 to 1.35 times as many again by Anthropic's own guide, and up to 1.47 as measured.
# The 530 are the longest system prompt that Anthropic's page on tool use names.
_CLAUDE = Tokenizer(vision=Areas(1_568, 1_600), tools=530, prior=1_350_000)
_CLAUDE_NEW = Tokenizer(vision=Areas(2_576, 4_784), tools=530, prior=2_000_000)
# Gemini's vocabulary of 256,000 comes close to o200k_base's; code and digits, which it splits one by one,
# take up to a quarter more.
_GEMINI = Tokenizer(vision=Crops(), prior=1_250_000)
_GEMINI_NEW = Tokenizer(vision=by_resolution, prior=1_250_000)
# Vocabularies of 32,000 to 128,000, of Llama, Mistral, Cohere and others: longer for all but English.
_ELSEWHERE = Tokenizer(prior=1_300_000)
ANY = Tokenizer()
"""An OpenAI-compatible server's own model: nothing is known until it has answered."""

_OPENAI: tuple[tuple[str, Tokenizer], ...] = (
    (r"text-embedding-|davinci-002|babbage-002|gpt-3\.5|gpt-35", Tokenizer(encoding=CL100K)),
    (r"gpt-4\.1-mini|gpt-4\.1-2025-04-14-mini", Tokenizer(vision=Patches(162))),
    (r"gpt-4\.1-nano", Tokenizer(vision=Patches(246))),
    (r"o4-mini|codex-mini", Tokenizer(vision=Patches(172))),
    (r"gpt-4o-mini", Tokenizer(vision=Tiles(2_833, 5_667))),
    (r"gpt-4o|chatgpt-4o|gpt-4\.1|gpt-4\.5", Tokenizer(vision=Tiles(85, 170))),
    (r"gpt-4", Tokenizer(encoding=CL100K, vision=Tiles(85, 170))),
    (r"gpt-5(\.\d+)?-mini", Tokenizer(vision=Patches(162, 2_500))),
    (r"gpt-5(\.\d+)?-nano", Tokenizer(vision=Patches(246, 2_500))),
    (r"gpt-5(\.1)?($|-)", Tokenizer(vision=Tiles(70, 140))),
    (r"gpt-5\.\d", Tokenizer(vision=Patches(120, 2_500, 10_000))),
    (r"gpt-[6-9]", Tokenizer(vision=Patches(120, 2_500, 30_000))),
    (r"o[13]($|-)", Tokenizer(vision=Tiles(75, 150))),
    (r"computer-use-preview", Tokenizer(vision=Tiles(65, 129))),
)
_HOSTS = frozenset({"openai", "azure", "azure_ai", "scripted", ""})
_CLAUDE_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?!\d)(?:[-.](\d{1,2})(?!\d))?")
_EARLY_CLAUDE = re.compile(r"claude-(?:instant|v\d)")
_OLD_GEMINI = re.compile(r"gemini-(?:pro|[12](?:\D|$))")


@lru_cache(maxsize=10_000)
def tokenizer_of(provider: str, model: str) -> Tokenizer:
    """How `model` at `provider` counts; by its name, since other vendors serve it under the same one."""
    name = model.lower()
    if (at := name.find("claude")) >= 0:
        return _claude(name, at)
    if (at := name.find("gemini")) >= 0:
        return _GEMINI if _OLD_GEMINI.match(name, at) else _GEMINI_NEW
    short = name.rpartition("/")[2].removeprefix("ft:")
    for pattern, tokenizer in _OPENAI:
        if re.match(pattern, short):
            return tokenizer
    if provider == "anthropic":
        return _CLAUDE_NEW
    return ANY if provider in _HOSTS else _ELSEWHERE


def _claude(name: str, at: int) -> Tokenizer:
    """A dated name (`claude-sonnet-4-20250514`) is of the first minor version."""
    version = _CLAUDE_VERSION.match(name, at)
    if version is None:
        return _CLAUDE if _EARLY_CLAUDE.match(name, at) else _CLAUDE_NEW
    return _CLAUDE if (int(version[1]), int(version[2] or 0)) < (4, 7) else _CLAUDE_NEW
