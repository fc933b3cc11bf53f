"""How far a model's prompts were from their counts: the measured error, which keeps holds above the truth."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from llm_proxy.counting.tokenizers import ONE

LEAST = 100
"""Tokens that a prompt has at least to be measured: of fewer, the vendor's own words are most."""
ENOUGH = 20
"""Answers from which on what was measured stands alone, without what was supposed before."""
MOST = 4 * ONE
"""The most that a count is raised by. A model that reports more miscounts, or reads what nobody sent."""
_LARGEST = 100 * ONE
FADES = 512
"""The worst ratio comes nearer to the mean by one part in so many with each answer."""
MOST_KEYS = 10_000
"""Callers choose the model's name where a target is `*`, so what is kept has to end somewhere."""


class Measured(msgspec.Struct, frozen=True, gc=False):
    """Of one provider's model: reported over counted prompt tokens, in millionths."""

    samples: int
    mean: int
    worst: int

    def then(self, ratio: int) -> Measured:
        """With one more answer."""
        return merged(self, Measured(1, ratio, ratio))


def merged(before: Measured, after: Measured) -> Measured:
    """Two rows of answers as one. The worst of those `before` fades by how many came after."""
    samples = before.samples + after.samples
    mean = (before.mean * before.samples + after.mean * after.samples) // samples
    fading = max(0, before.worst - mean) * min(after.samples, FADES) // FADES
    return Measured(samples, mean, max(after.worst, before.worst - fading))


def error_key(provider: str, model: str) -> str:
    """The key of a provider's model in the store."""
    return f"{provider}/{model}"


class TokenErrors:
    """What this process measured, and what others wrote. Used from the event loop only."""

    def __init__(self) -> None:
        self._known: Mapping[str, Measured] = {}
        self._new: dict[str, Measured] = {}
        self._sending: dict[str, Measured] = {}

    def observe(self, key: str, counted: int, reported: int) -> float | None:
        """Takes in an answer; the ratio, None where it says nothing."""
        if counted < LEAST or reported <= 0:
            return None
        ratio = min(_LARGEST, reported * ONE // counted)
        before = self._new.get(key)
        if before is not None:
            self._new[key] = before.then(ratio)
        elif len(self._new) < MOST_KEYS:
            self._new[key] = Measured(1, ratio, ratio)
        return ratio / ONE

    def raised(self, key: str, counted: int, prior: int) -> int:
        """A count as a hold takes it: by the worst ratio so far, never less than it is."""
        ratio = self.factor(key, prior)
        return counted if ratio == ONE else -(-counted * ratio // ONE)

    def factor(self, key: str, prior: int) -> int:
        """The worst ratio, in millionths; `prior` counts too until enough answers came."""
        seen = [one for book in (self._known, self._sending, self._new) if (one := book.get(key))]
        worst = max([one.worst for one in seen], default=ONE)
        supposed = ONE if sum([one.samples for one in seen]) >= ENOUGH else prior
        return min(MOST, max(ONE, worst, supposed))

    def take(self) -> Mapping[str, Measured]:
        """What is to be written: all that is new. Ends with `hear`, or `keep` where it wasn't written."""
        self._sending, self._new = self._new, {}
        return self._sending

    def hear(self, rows: Mapping[str, Measured]) -> None:
        """What the store holds now, with all that was taken in it."""
        self._known, self._sending = rows, {}

    def keep(self) -> None:
        """What was taken was not written: it waits for the next time."""
        for key, older in self._sending.items():
            newer = self._new.get(key)
            self._new[key] = older if newer is None else merged(older, newer)
        self._sending = {}
