"""Counting tokens offline with tiktoken, over the encodings that the litellm package carries."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding

ENCODING = "o200k_base"
PER_MESSAGE = 4
"""Tokens that a chat template adds around each message (role, separators)."""
PER_REPLY = 3
"""Tokens that prime the reply."""
IMAGE = 1_105
"""Tokens of an image at high detail, 1024x1024, by OpenAI's tile formula: 85 + 4 tiles x 170 + margin."""
_PIECE = 8_192
"""Characters encoded at a time: byte-pair merging of one unbroken piece is quadratic in its length."""
_LARGE = 65_536
"""Characters past which counting goes to a thread; the encoder releases the GIL there."""


class TokenCounter:
    """Counts tokens; loads its encoding (84 MB, a quarter of a second) with the first call that needs it."""

    def __init__(self) -> None:
        self._encoding: Encoding | None = None
        self._loading = asyncio.Lock()

    async def ready(self) -> None:
        """Loads the encoding in a thread, once."""
        if self._encoding is None:
            async with self._loading:
                if self._encoding is None:
                    self._encoding = await asyncio.to_thread(_load)

    async def count(self, texts: tuple[str, ...]) -> int:
        """Tokens of `texts`; large ones are counted in a thread."""
        await self.ready()
        if sum(map(len, texts)) > _LARGE:
            return await asyncio.to_thread(self.count_now, texts)
        return self.count_now(texts)

    def count_now(self, texts: tuple[str, ...]) -> int:
        """Tokens of `texts`; only after `ready`."""
        if self._encoding is None:
            raise RuntimeError("the encoding is not loaded: await ready() first")
        encode = self._encoding.encode_ordinary
        return sum(len(encode(piece)) for text in texts for piece in _pieces(text))


def _pieces(text: str) -> list[str]:
    if len(text) <= _PIECE:
        return [text]
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _load() -> Encoding:
    spec = importlib.util.find_spec("litellm")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(bundled))
    import tiktoken  # noqa: PLC0415 - heavy, and only needed where a limit counts tokens

    return tiktoken.get_encoding(ENCODING)
