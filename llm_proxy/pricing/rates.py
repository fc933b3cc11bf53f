"""What tokens cost, by their kind: exact integers, and no token under two kinds."""

from __future__ import annotations

from dataclasses import dataclass, field

from llm_proxy.chat.events import Usage


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-dollars (1e-12) a token."""

    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    """For five minutes; below for an hour."""
    cache_write_hour: int = 0
    reasoning: int = 0
    audio_input: int = 0
    audio_output: int = 0
    image_input: int = 0
    image_output: int = 0
    cached_audio: int = 0
    cached_image: int = 0
    dearest_input: int = field(init=False, compare=False, default=0)
    """The most that a token of a prompt can cost that isn't kept for an hour; below whatever its kind."""
    dearest_hour: int = field(init=False, compare=False, default=0)
    dearest_output: int = field(init=False, compare=False, default=0)
    """The most that a token of a reply can cost."""

    def __post_init__(self) -> None:
        prompt = (self.input, self.cached, self.cache_write)
        heard = (self.audio_input, self.image_input, self.cached_audio, self.cached_image)
        reply = (self.output, self.reasoning, self.audio_output, self.image_output)
        usual = max(*prompt, *heard)
        object.__setattr__(self, "dearest_input", usual)
        object.__setattr__(self, "dearest_hour", max(usual, self.cache_write_hour))
        object.__setattr__(self, "dearest_output", max(reply))

    @classmethod
    def plain(cls, input_: int, output: int) -> Rates:
        """Every kind of token at its side's one rate."""
        prompt = dict.fromkeys(_PROMPT, input_)
        return cls(**prompt, **dict.fromkeys(_REPLY, output))

    def pico(self, usage: Usage) -> int:
        """The cost of `usage` in pico-dollars. A part told to be larger than its whole is cut to it."""
        return self._prompt(usage) + self._reply(usage)

    def _prompt(self, usage: Usage) -> int:
        whole = usage.input
        cached = min(usage.cached, whole)
        written = min(usage.cache_write, whole - cached)
        fresh = whole - cached - written
        pico = fresh * self.input + cached * self.cached + written * self.cache_write
        if usage.cache_write_hour:
            hour = min(usage.cache_write_hour, written)
            pico += hour * (self.cache_write_hour - self.cache_write)
        if usage.audio_input or usage.image_input:
            pico += self._heard(usage, cached, fresh)
        return pico

    def _heard(self, usage: Usage, cached: int, fresh: int) -> int:
        """What sound and pictures cost beyond text. Those not said to come from the cache count as fresh."""
        old_audio = min(usage.cached_audio, cached)
        old_image = min(usage.cached_image, cached - old_audio)
        audio = min(max(usage.audio_input - old_audio, 0), fresh)
        image = min(max(usage.image_input - old_image, 0), fresh - audio)
        return (
            audio * (self.audio_input - self.input)
            + image * (self.image_input - self.input)
            + old_audio * (self.cached_audio - self.cached)
            + old_image * (self.cached_image - self.cached)
        )

    def _reply(self, usage: Usage) -> int:
        whole = usage.output
        thought = min(usage.reasoning, whole)
        pico = (whole - thought) * self.output + thought * self.reasoning
        if usage.audio_output or usage.image_output:
            audio = min(usage.audio_output, whole - thought)
            image = min(usage.image_output, whole - thought - audio)
            pico += audio * (self.audio_output - self.output) + image * (self.image_output - self.output)
        return pico


_PROMPT = (
    *("input", "cached", "cache_write", "cache_write_hour"),
    *("audio_input", "image_input", "cached_audio", "cached_image"),
)
_REPLY = ("output", "reasoning", "audio_output", "image_output")
