"""What `router_settings` (and the same keys of `litellm_settings`) say for all models together."""

from __future__ import annotations

from dataclasses import dataclass

from llm_proxy.config.choices import StrategyName
from llm_proxy.importing.report import Notes
from llm_proxy.importing.source import Field

MOST_RETRIES = 10
MOST_SECONDS = 86_400
MOST_FAILURES = 1000
_STRATEGIES = {
    "simple-shuffle": (StrategyName.WEIGHTED, ""),
    "least-busy": (StrategyName.LEAST_BUSY, ""),
    "cost-based-routing": (StrategyName.LOWEST_COST, ""),
    "latency-based-routing": (
        StrategyName.LEAST_LATENCY,
        "here the quicker of two by a moving peak, there the quickest by an average",
    ),
    "usage-based-routing": (StrategyName.LEAST_BUSY, "by calls in flight, there by tokens of this minute"),
    "usage-based-routing-v2": (StrategyName.LEAST_BUSY, "by calls in flight, there by tokens of this minute"),
}
_CHECKS = {
    "deployment_affinity": "a run stays on its target; there a key does",
    "session_affinity": "a run is what a session is there",
    "prompt_caching": "a run stays on the target whose prompt cache it warmed",
    "responses_api_deployment_check": "a response is continued by the server that began it",
    "encrypted_content_affinity": "what one server encrypted is never sent to another",
}
_ENFORCED = "enforce_model_rate_limits"


@dataclass(frozen=True, slots=True)
class Routing:
    """None is LiteLLM's default. Times are in seconds."""

    strategy: StrategyName = StrategyName.WEIGHTED
    affinity: bool = False
    hard_limits: bool = False
    """`rpm` and `tpm` are more than shares."""
    retries: int | None = None
    timeout_s: float | None = None
    stream_timeout_s: float | None = None
    failures: int | None = None
    cool_down_s: float | None = None
    concurrency: int | None = None


class Settings:
    """The two sections that hold the router's settings; `router_settings` wins."""

    def __init__(self, root: Field, notes: Notes) -> None:
        self._sections = (root.at("router_settings"), root.at("litellm_settings"))
        self._notes = notes

    def pick(self, key: str) -> Field | None:
        """The one that is in force. Of the other it is said that it is not."""
        found = [field for section in self._sections if (field := section.get(key)) is not None]
        for field in found[1:]:
            self._notes.exact(field, note=f"has no effect, as there: router_settings.{key} wins")
        return found[0] if found else None


def read_routing(settings: Settings, notes: Notes) -> Routing:
    strategy, limited = _strategy(settings.pick("routing_strategy"), notes)
    affinity, enforced = _checks(settings.pick("optional_pre_call_checks"), notes)
    timeout = _timeout(settings, notes)
    concurrency = settings.pick("default_max_parallel_requests")
    return Routing(
        strategy=strategy,
        affinity=affinity,
        hard_limits=limited or enforced,
        retries=retries(settings.pick("num_retries"), "models.*", notes, alone=False),
        timeout_s=timeout,
        stream_timeout_s=seconds(settings.pick("stream_timeout"), "models.*", "idle_s", notes),
        failures=_failures(settings, notes),
        cool_down_s=cool_down(settings.pick("cooldown_time"), "models.*", notes),
        concurrency=_concurrency(concurrency, notes),
    )


def _strategy(field: Field | None, notes: Notes) -> tuple[StrategyName, bool]:
    """And whether it goes by `rpm` and `tpm` as limits."""
    if field is None:
        return StrategyName.WEIGHTED, False
    name = field.text or ""
    if name not in _STRATEGIES:
        notes.unsupported(field, "there is no such strategy here: weighted is written")
        return StrategyName.WEIGHTED, False
    strategy, note = _STRATEGIES[name]
    if note:
        notes.approximate(field, f"models.*.strategy = {strategy}", note)
    else:
        notes.exact(field, f"models.*.strategy = {strategy}")
    return strategy, strategy is not StrategyName.WEIGHTED


def _checks(field: Field | None, notes: Notes) -> tuple[bool, bool]:
    """Whether calls stick to a target, and whether limits are enforced."""
    affinity = enforced = False
    for item in field.items() if field else []:
        if item.text in _CHECKS:
            affinity = affinity or "affinity" in item.text or item.text == "prompt_caching"
            notes.approximate(item, "models.*.affinity = run", _CHECKS[item.text])
        elif item.text == _ENFORCED:
            enforced = True
            notes.exact(item, "models.*.targets[].rpm, models.*.targets[].tpm")
    return affinity, enforced


def _timeout(settings: Settings, notes: Notes) -> float | None:
    """Of one attempt: `request_timeout` goes before the router's own."""
    router, request = settings.pick("timeout"), settings.pick("request_timeout")
    of_request = seconds(request, "models.*", "first_event_s", notes)
    if of_request is not None and router is not None:
        notes.approximate(router, "", "litellm_settings.request_timeout is the limit of an attempt")
    return of_request if of_request is not None else seconds(router, "models.*", "first_event_s", notes)


def _concurrency(field: Field | None, notes: Notes) -> int | None:
    if field is None:
        return None
    most = field.whole(1, 10**6)
    if most is None:
        notes.unsupported(field, "is no whole number from 1 to 1000000")
    else:
        notes.exact(field, "models.*.targets[].concurrency")
    return most


def _failures(settings: Settings, notes: Notes) -> int | None:
    off = settings.pick("disable_cooldowns")
    allowed = failures(settings.pick("allowed_fails"), "models.*", notes)
    if off is None or off.switch is None:
        return allowed
    if not off.switch:
        notes.exact(off, note="as here")
        return allowed
    note = f"a breaker can't be turned off: {MOST_FAILURES} failures in a row open it"
    notes.approximate(off, "models.*.breaker.failures", note)
    return MOST_FAILURES


def retries(field: Field | None, label: str, notes: Notes, *, alone: bool) -> int | None:
    """`alone`: the model has one target, so that tries of the call and of the target are the same."""
    if field is None:
        return None
    wanted = field.whole(0, 10**6)
    if wanted is None:
        notes.unsupported(field, "is no whole number from 0 on")
        return None
    if wanted > MOST_RETRIES:
        notes.approximate(field, f"{label}.retries", f"{MOST_RETRIES} is the most here")
    elif alone or not wanted:
        notes.exact(field, f"{label}.retries")
    else:
        note = "here at each target; there over all targets of the call"
        notes.approximate(field, f"{label}.retries", note)
    return min(wanted, MOST_RETRIES)


def seconds(field: Field | None, label: str, key: str, notes: Notes) -> float | None:
    if field is None:
        return None
    number = field.number
    if number is None or number <= 0:
        notes.unsupported(field, "is no number of seconds over 0")
        return None
    note = "there of one attempt; here apart for its first sign, its silences and the whole call"
    notes.approximate(field, f"{label}.timeouts.{key}", note)
    return min(number, MOST_SECONDS)


def failures(field: Field | None, label: str, notes: Notes) -> int | None:
    if field is None:
        return None
    allowed = field.whole(0, 10**9)
    if allowed is None:
        notes.unsupported(field, "is no whole number from 0 on")
        return None
    note = "one more than are allowed; here in a row, there within a minute"
    notes.approximate(field, f"{label}.breaker.failures", note)
    return min(allowed + 1, MOST_FAILURES)


def cool_down(field: Field | None, label: str, notes: Notes) -> float | None:
    if field is None:
        return None
    number = field.number
    if number is None or number <= 0:
        notes.unsupported(field, "is no number of seconds over 0; a breaker can't be turned off")
        return None
    notes.exact(field, f"{label}.breaker.cool_down_s")
    return min(number, MOST_SECONDS)
