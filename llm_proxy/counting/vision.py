"""What a picture costs in tokens, by each vendor's formula, from its size in pixels alone.

Where a size isn't known (0, 0), for a picture that stands behind a URL or an id, it's the most that any
picture costs there. Where a vendor's document and what is billed differ, the larger one stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, sqrt

Vision = Callable[[int, int, str], int]
"""Tokens of a picture so many pixels wide and high, at a `detail` (low, high, auto, original or empty)."""

_TILE, _BOX, _SHORT = 512, 2_048, 768
_PATCH = 32
_NEAR = 1e-6


@dataclass(frozen=True, slots=True)
class Tiles:
    """OpenAI's tiles: the picture is fitted into 2048 x 2048, then its short side to 768, and each 512 px
    square costs `tile`, all of it `base` more; at low detail `base` alone.

    Source: platform.openai.com/docs/guides/images-vision, "Calculating costs" (1024 x 1024 is 765 tokens for
    gpt-4o, 2048 x 4096 is 1,105).
    """

    base: int
    tile: int

    def __call__(self, width: int, height: int, detail: str) -> int:
        if detail == "low":
            return self.base
        if not width or not height:
            width, height = _SHORT, _BOX
        wide, high = _fitted(width, height, _BOX / max(width, height))
        wide, high = _fitted(wide, high, _SHORT / min(wide, high))
        return self.base + self.tile * _up(wide / _TILE) * _up(high / _TILE)


@dataclass(frozen=True, slots=True)
class Patches:
    """OpenAI's patches of 32 px, at most `most`, times a model's own factor in hundredths.

    `original`: at most so many where full detail is asked for, or left to the vendor. Low detail changes
    nothing. Source: the same page, "Patch-based image tokenization" (1800 x 2400 is 1,452 patches of 1,536);
    what the gpt-5 family bills was measured in community.openai.com/t/1377015 and /t/1344040.
    """

    hundredths: int
    most: int = 1_536
    original: int = 0

    def __call__(self, width: int, height: int, detail: str) -> int:
        most = self.most if detail in ("high", "low") else max(self.most, self.original)
        patches = _patches(width, height, most) if width and height else most
        return -(-patches * self.hundredths // 100)


@dataclass(frozen=True, slots=True)
class Areas:
    """Anthropic's: a token for each 28 px square, or width x height / 750 by its older book, behind a resize
    to at most `edge` pixels and `most` tokens.

    Source: platform.claude.com/docs/en/build-with-claude/vision, "Evaluate image size".
    """

    edge: int
    most: int

    def __call__(self, width: int, height: int, detail: str) -> int:
        if not width or not height:
            return self.most
        wide, high = _fitted(width, height, self.edge / max(width, height))
        return min(self.most, max(_up(wide / 28) * _up(high / 28), _up(wide * high / 750)))


@dataclass(frozen=True, slots=True)
class Crops:
    """Gemini 2's: 258 tokens up to 384 x 384, else for each crop of 256 to 768 px.

    The crop is two thirds of the short side. Source: ai.google.dev/gemini-api/docs/image-understanding,
    "Token calculation". It names no largest picture: unknown ones count as a photo of 12 megapixels.
    """

    tokens: int = 258

    def __call__(self, width: int, height: int, detail: str) -> int:
        if not width or not height:
            width, height = 4_032, 3_024
        if width <= 384 and height <= 384:
            return self.tokens
        crop = min(768, max(256, int(min(width, height) / 1.5)))
        return self.tokens * -(-width // crop) * -(-height // crop)


def by_resolution(width: int, height: int, detail: str) -> int:
    """Gemini 3's: so many tokens by `media_resolution`, whatever the size. Without one it is high.

    Source: ai.google.dev/gemini-api/docs/media-resolution, "Token counts".
    """
    return 2_240 if detail == "ultra_high" else 1_120


def any_vendor(width: int, height: int, detail: str) -> int:
    """For a model of which nothing is known: the largest of the usual ways to count."""
    return max(Tiles(85, 170)(width, height, detail), Areas(2_576, 4_784)(width, height, detail))


def _patches(width: int, height: int, most: int) -> int:
    count = -(-width // _PATCH) * -(-height // _PATCH)
    if count <= most:
        return count
    shrink = sqrt(most * _PATCH**2 / (width * height))
    wide, high = width * shrink / _PATCH, height * shrink / _PATCH
    fit = min(max(1, floor(wide)) / wide, max(1, floor(high)) / high)
    return min(most, _up(wide * fit) * _up(high * fit))


def _fitted(width: float, height: float, scale: float) -> tuple[float, float]:
    """Made smaller, never larger."""
    scale = min(1.0, scale)
    return width * scale, height * scale


def _up(value: float) -> int:
    return max(1, ceil(value - _NEAR))
