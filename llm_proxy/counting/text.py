"""Counting the tokens of texts offline with tiktoken, over the encodings that the litellm package carries."""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from llm_proxy.counting.tokenizers import O200K

if TYPE_CHECKING:
    from tiktoken import Encoding

_PIECE = 8_192
"""Characters encoded at a time: byte-pair merging of one unbroken piece is quadratic in its length."""
_LARGE = 65_536
"""Characters past which counting goes to a thread; the encoder releases the GIL there."""


class TokenCounter:
    """Counts tokens; loads an encoding (84 MB, a quarter of a second) with the first call that needs it."""

    def __init__(self) -> None:
        self._encodings: dict[str, Encoding] = {}
        self._loading = asyncio.Lock()

    async def ready(self, names: Iterable[str] = (O200K,)) -> None:
        """Loads the encodings in a thread, each once."""
        for name in names:
            if name not in self._encodings:
                async with self._loading:
                    if name not in self._encodings:
                        self._encodings[name] = await asyncio.to_thread(_load, name)

    async def count(self, texts: tuple[str, ...], name: str = O200K) -> int:
        """Tokens of `texts` in that encoding; large ones are counted in a thread."""
        await self.ready((name,))
        if sum(map(len, texts)) > _LARGE:
            return await asyncio.to_thread(self.count_now, texts, name)
        return self.count_now(texts, name)

    def count_now(self, texts: tuple[str, ...], name: str = O200K) -> int:
        """Tokens of `texts`; only after `ready`."""
        encoding = self._encodings.get(name)
        if encoding is None:
            raise RuntimeError(f"the encoding {name} is not loaded: await ready() first")
        encode = encoding.encode_ordinary
        return sum(len(encode(piece)) for text in texts for piece in _pieces(text))


def _pieces(text: str) -> list[str]:
    if len(text) <= _PIECE:
        return [text]
    return [text[start : start + _PIECE] for start in range(0, len(text), _PIECE)]


def _load(name: str) -> Encoding:
    spec = importlib.util.find_spec("litellm")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"
        os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(bundled))
    import tiktoken  # noqa: PLC0415 - heavy, and only needed where a limit counts tokens

    return tiktoken.get_encoding(name)
